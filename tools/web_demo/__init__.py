"""A web page that scores images and videos."""
