//! The same decision with a witness that remembers: the requirement as a tree with ✓ and ✗.
