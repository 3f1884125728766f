"""Trainers, one subpackage for each version of the training interface."""
