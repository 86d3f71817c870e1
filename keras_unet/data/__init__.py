"""From files to training samples: images, labels, weight maps, deformation, batches."""
