# One image for the Flink nodes, the jobs' client, the index and the retrain process.
FROM maven:3.9.9-eclipse-temurin-17 AS jars
WORKDIR /jars
COPY pipelines/jars.xml pipelines/jars.sha256 ./
RUN mvn -q -B -f jars.xml \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory=/jars \
    && sha256sum --check --quiet jars.sha256 \
    && rm jars.xml jars.sha256

FROM flink:2.2.1-scala_2.12-java17
ENV UV_PYTHON_INSTALL_DIR=/opt/python \
    SLUICE_HOME=/var/lib/sluice \
    OMP_NUM_THREADS=1 \
    MKL_NUM_THREADS=1 \
    TOKENIZERS_PARALLELISM=false \
    PATH=/opt/sluice/bin:$PATH
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
RUN uv python install 3.11 && uv venv --python 3.11 /opt/sluice


WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY automl automl
COPY connectors connectors
COPY encoders encoders
COPY fusion fusion
COPY pipelines pipelines
RUN uv pip install --no-cache --python /opt/sluice/bin/python -c constraints.txt .
RUN /opt/sluice/bin/python -m automl.compiled

COPY --from=jars --chown=flink:flink /jars /opt/flink/.cache/sluice/jars/4.3.1
RUN cp /opt/flink/opt/flink-python-2.2.1.jar /opt/flink/lib/ \
    && cp /opt/flink/.cache/sluice/jars/4.3.1/flink-sql-connector-kafka-*.jar \
          /opt/flink/lib/ \
    && mkdir -p /var/lib/sluice && chown flink:flink /var/lib/sluice
USER flink
ENV HOME=/opt/flink
WORKDIR /var/lib/sluice
