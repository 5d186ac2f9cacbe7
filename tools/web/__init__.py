"""The parts of tools.web_demo: models to choose from, answers about a file, examples, and the page around them."""
