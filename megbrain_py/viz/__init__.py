"""Pictures: detections, training curves, memory of a plan."""
