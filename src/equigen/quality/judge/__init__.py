"""Classifiers of real images that read diagnoses and attributes in generated ones."""
