"""One Flink function each; a job wires them together."""
