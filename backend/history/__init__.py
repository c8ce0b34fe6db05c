"""The record as people ask it: questions with their answers, and the statistics that belong to them."""
