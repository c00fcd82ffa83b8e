"""The web API: URLs -> monitor/query.py -> JSON. What it takes stands in tables.py, which is also its OpenAPI."""
