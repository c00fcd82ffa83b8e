"""Boards for other programs' dashboards, each a file that they import: grafana.json for Grafana on InfluxDB."""
