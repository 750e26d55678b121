// Two hosts on one cable, as most scenarios want them.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <string>

#include "tests/support/packet_view.h"
#include "tests/support/simulator.h"

namespace ustack::test {

/// Long enough for anything that should happen at once on a clean wire.
inline constexpr Duration kSoon = 3s;

struct PairOptions {
  uint64_t seed = 1;
  Impairments forward{}, backward{};  ///< client to server, and back
  LinkInfo client_link{}, server_link{};
  Settings client_settings{}, server_settings{};
  bool acks_wait = false;
};

/// tcpi_state, or -errno.
inline int tcp_state(TestSocket& socket) {
  tcp_info info{};
  auto size = socket->get_option(IPPROTO_TCP, TCP_INFO, std::as_writable_bytes(std::span(&info, 1)));
  return size.ok() ? info.tcpi_state : -size.code();
}

/// 192.0.2.1 (client) and 192.0.2.2 (server).
struct Pair {
  explicit Pair(const PairOptions& options = {})
      : net(options.seed),
        client(net.add_host({.name = "client",
                             .address = {IpAddress::v4(192, 0, 2, 1), 24},
                             .link = options.client_link,
                             .settings = options.client_settings,
                             .acks_wait = options.acks_wait})),
        server(net.add_host({.name = "server",
                             .address = {IpAddress::v4(192, 0, 2, 2), 24},
                             .link = options.server_link,
                             .settings = options.server_settings,
                             .acks_wait = options.acks_wait})),
        cable(net.connect(client, server, options.forward, options.backward)) {}

  /// A listener on `port` and one connection through it: `near` is the client's end, `far` the server's.
  bool establish(uint16_t port = 80, Duration limit = kSoon) {
    if (!listener) listener = server.listen(port);
    if (!listener) return false;
    near = client.connect(server, port);
    if (!near) return false;
    return net.run_until(
        [&] {
          if (!far) far = listener.accept();
          return far && near.connected();
        },
        limit);
  }

  /// Takes everything that arrives at `socket` until `size` bytes are there, the stream ends or `limit` is
  /// over.
  std::string read(TestSocket& socket, size_t size, Duration limit = kSoon) {
    std::string text;
    net.run_until(
        [&] {
          if (text.size() < size) text += socket.receive(size - text.size());
          return text.size() >= size || ended(socket);
        },
        limit);
    return text;
  }

  /// The next thing to receive is the end of the stream.
  static bool ended(TestSocket& socket) {
    auto view = socket->view_receive(1, 0);
    if (!view.ok()) return false;
    socket->consume(0);
    return view->bytes == 0;
  }
  /// What receiving reports now: 0 data or end of stream, else the errno.
  static int receive_error(TestSocket& socket) {
    auto view = socket->view_receive(1, 0);
    if (!view.ok()) return view.code();
    socket->consume(0);
    return 0;
  }

  Simulator net;
  TestHost& client;
  TestHost& server;
  Cable& cable;
  TestSocket listener, near, far;
};

}  // namespace ustack::test
