"""Studies: arms x seeds trained and measured, and what their results say in tables, plots and pages."""
