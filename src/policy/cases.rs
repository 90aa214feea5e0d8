//! `*.test.yaml`: cases for `policy test`, with coverage of routes and branches.
