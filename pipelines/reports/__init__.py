"""Reports: runs and extractions as tables, charts and one HTML page."""
