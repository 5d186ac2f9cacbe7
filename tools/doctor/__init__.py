"""What tools.check_dataset finds: the folders as the scripts read them, every file once, and what is wrong with either."""
