"""Running THE-X: container, compose, Kubernetes, Prometheus, Grafana."""
