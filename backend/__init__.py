"""The server: instances, detectors, fusion, pre-annotation, Label Studio's formats and the HTTP edge."""
