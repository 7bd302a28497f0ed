"""What the site tells about its cases before planning, measured and explained."""
