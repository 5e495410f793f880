"""Providers of hosted models."""
