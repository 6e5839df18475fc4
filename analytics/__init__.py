"""Analytics: projects usage into tables and renders dashboards and reports from them."""
