# castd in a small image. Everything the build needs comes from crates.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin castd

FROM debian:bookworm-slim
# The data of `castd` without flags is in default.etcd below this directory.
RUN useradd --system --uid 10001 --home-dir /var/lib/etcd --shell /usr/sbin/nologin castd \
 && install -d -o castd -g castd -m 0700 /var/lib/etcd
COPY --from=build /src/target/release/castd /usr/local/bin/castd
USER castd
WORKDIR /var/lib/etcd
VOLUME /var/lib/etcd
# As in etcd's image: clients and peers.
EXPOSE 2379 2380
# castd asks itself: the image has no other client.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["/usr/local/bin/castd", "health", "http://127.0.0.1:2379"]
ENTRYPOINT ["/usr/local/bin/castd"]
