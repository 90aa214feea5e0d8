//! What is asked elsewhere: of a user service (SPEC 5.5), of a blacklist that another program writes (SPEC 8; THREATS T15).

mod iam;
mod iam_faults;
mod iam_streams;
mod lookup;
mod service;
