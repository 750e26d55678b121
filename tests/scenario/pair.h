// Two hosts on one cable, as most scenarios want them.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstdlib>
#include <string>

#include "tests/support/packet_view.h"
#include "tests/support/simulator.h"
#include "tests/support/v6_address.h"

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

/// 2001:db8::N.
inline IpAddress v6_number(uint8_t n) { return v6(0x2001, 0xdb8, n); }

/// The address of host `n` of a network. USTACK_TEST_FAMILY=6: all scenarios over IPv6.
inline Prefix pair_address(uint8_t n) {
  const char* family = std::getenv("USTACK_TEST_FAMILY");
  if (family != nullptr && *family == '6') return {v6_number(n), 64};
  return {IpAddress::v4(192, 0, 2, n), 24};
}

/// An address of the same family in another network.
inline IpAddress far_address() {
  if (pair_address(1).address.is_v4()) return IpAddress::v4(198, 51, 100, 1);
  std::byte bytes[16];
  std::memcpy(bytes, v6_number(1).data(), sizeof bytes);
  bytes[7] = std::byte{1};
  return IpAddress::from_bytes(Family::ipv6, bytes);
}

/// 192.0.2.1 (client) and 192.0.2.2 (server), or 2001:db8::1 and ::2.
struct Pair {
  explicit Pair(const PairOptions& options = {})
      : net(options.seed),
        client(net.add_host({.name = "client",
                             .address = pair_address(1),
                             .link = options.client_link,
                             .settings = options.client_settings,
                             .acks_wait = options.acks_wait})),
        server(net.add_host({.name = "server",
                             .address = pair_address(2),
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
