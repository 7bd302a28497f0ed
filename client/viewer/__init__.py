"""A person looks at cases: slices of image, reference and prediction in a browser, at the site."""
