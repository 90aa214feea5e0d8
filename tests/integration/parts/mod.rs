//! Programs that nobody here wrote, used through doorward as their users would: curl, grpcio, Jupyter Server, FastAPI, h2load,
//! slowhttptest, sslscan. `tests/run` installs them; without them these tests fail and say so.
//!
//! Each part is started on a port of its own in a folder of its own, and stopped with the test that started it. What the
//! libraries among them need is in `tests/parts/*.py`.

mod contacts;
mod downstream;
mod part;
mod service;

mod h2load;
mod slow;
mod sslscan;
mod strangers;
mod table;
mod upstreams;
mod user_service;
