//! A YAML tree with places, that refuses duplicate keys.
