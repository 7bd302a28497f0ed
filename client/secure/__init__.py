"""A site's part in adding updates so that only their sum is seen (`common.secure_round`)."""
