"""One payment as a plain JSON event, from any Kafka client: no sluice code needed."""

import json
import sys
import time

from kafka import KafkaProducer

EVENT = {"event_id": "example-1", "case_id": "example-case-1", "amount": 129.9}
EVENT |= {"customer": "c00001", "terminal": "t0001", "device": "d00001"}
EVENT |= {"merchant_risk": 0.2, "device_age_days": 40, "foreign": False}

if __name__ == "__main__":
    bootstrap = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9092"
    now = {"event_time_ms": int(time.time() * 1000)}
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send("events.tabular", json.dumps(EVENT | now).encode()).get(timeout=10)
