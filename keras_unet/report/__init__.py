"""Reports: pictures, charts, and the HTML page that shows them."""
