//! Making tokens: for `doorward token mint`, the demo and tests.
