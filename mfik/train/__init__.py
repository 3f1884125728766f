"""Trainers, one subpackage a version of the method."""
