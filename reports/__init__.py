"""Numbers to tables, plots and pages; nothing here computes."""
