//! The program from outside: against its own server of empty calls, and against a real etcd.

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod empty;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod support;
