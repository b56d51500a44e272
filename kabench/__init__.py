"""kabench measures what a Kubernetes scheduler does to tail latency."""

__version__ = "0.1.0"
