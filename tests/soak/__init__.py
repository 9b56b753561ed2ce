"""What a server holds after thousands of loads and predictions, beside what it held at first."""
