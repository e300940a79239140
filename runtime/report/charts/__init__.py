"""Charts of the report: Plotly figures and the static SVG."""
