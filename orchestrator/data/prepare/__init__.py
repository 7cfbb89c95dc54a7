"""Writes data sets in ImageNet layout."""
