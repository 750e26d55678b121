#include "tests/support/tcp_peer.h"

#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ustack::test {

namespace {

std::byte octet(uint32_t value) { return static_cast<std::byte>(value); }

void put32(ByteVector& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(octet(value >> shift));
}

}  // namespace

ByteVector mss_option(uint16_t mss) { return {octet(2), octet(4), octet(mss >> 8), octet(mss)}; }
ByteVector window_scale_option(uint8_t shift) { return {octet(1), octet(3), octet(3), octet(shift)}; }
ByteVector sack_permitted_option() { return {octet(1), octet(1), octet(4), octet(2)}; }
ByteVector timestamps_option(uint32_t value, uint32_t echo) {
  ByteVector out{octet(1), octet(1), octet(8), octet(10)};
  put32(out, value);
  put32(out, echo);
  return out;
}
ByteVector fast_open_option(const ByteVector& cookie) {
  ByteVector out{octet(34), octet(static_cast<uint32_t>(2 + cookie.size()))};
  out = out + cookie;
  while (out.size() % 4 != 0) out.push_back(octet(1));
  return out;
}
ByteVector sack_option(const std::vector<std::pair<uint32_t, uint32_t>>& blocks) {
  ByteVector out{octet(1), octet(1), octet(5), octet(static_cast<uint32_t>(2 + 8 * blocks.size()))};
  for (const auto& [start, end] : blocks) {
    put32(out, start);
    put32(out, end);
  }
  return out;
}

TcpPeer::TcpPeer(const Options& options)
    : arena_(options.recycle && HeapArena().recycle()), random_(options.seed) {
  HostConfig config;
  config.network.link = options.link;
  config.network.addresses[0] = {kHost, 24};
  config.network.address_count = 1;
  if (options.gateway.family() != Family::unspecified) {
    config.network.gateways[0] = options.gateway;
    config.network.gateway_count = 1;
  }
  config.settings = options.settings;
  config.fiber_stacks_carved = 0;
  const char* level = std::getenv("USTACK_TEST_LOG");
  config.log = Log(level != nullptr ? LogLevel::trace : LogLevel::off, this);
  host_ = Host::create(arena_, random_, config, now_);
}

TcpPeer::~TcpPeer() { Host::destroy(host_); }

void TcpPeer::write(LogLevel, std::string_view line) {
  std::fprintf(stderr, "%10.6f %.*s\n", std::chrono::duration<double>(now_.time_since_epoch()).count() - 3600,
               static_cast<int>(line.size()), line.data());
}

TestSocket TcpPeer::socket() {
  auto socket = host_->open_socket(AF_INET, SOCK_STREAM, 0);
  return socket.ok() ? TestSocket(*socket) : TestSocket();
}

TestSocket TcpPeer::listen(int backlog, uint16_t at) {
  TestSocket listener = socket();
  if (!listener->bind({IpAddress::any(Family::ipv4), at}).ok() || !listener->listen(backlog).ok()) return {};
  return listener;
}

TestSocket TcpPeer::connect() {
  TestSocket connecting = socket();
  if (connecting->connect({kPeer, port}).code() != EINPROGRESS) return {};
  run();
  host_port = (*connecting->local_address()).port;
  for (const CapturedFrame& frame : sent_)
    if (frame.tcp && frame.tcp->source_port == host_port) iss = frame.tcp->seq;
  return connecting;
}

TestSocket TcpPeer::connected(const ByteVector& options, uint16_t window) {
  TestSocket socket = connect();
  send({.seq = peer_iss, .ack = iss + 1, .flags = "SA", .window = window, .options = options});
  take();
  return socket;
}

TestSocket TcpPeer::accepted(TestSocket& listener, const ByteVector& options, uint16_t window) {
  host_port = (*listener->local_address()).port;
  send({.seq = peer_iss, .flags = "S", .window = window, .options = options});
  for (const CapturedFrame& frame : take())
    if (frame.tcp) iss = frame.tcp->seq;
  send({.seq = peer_iss + 1, .ack = iss + 1, .window = window});
  take();
  return listener.accept();
}

void TcpPeer::receive(const ByteVector& packet) {
  RxFrame frame;
  frame.data.block = host_->blocks().allocate(static_cast<uint32_t>(packet.size()));
  if (!frame.data.block) return;
  std::memcpy(frame.data.block->data(), packet.data(), packet.size());
  frame.data.length = static_cast<uint32_t>(packet.size());
  frame.arrived = now_;
  host_->receive(std::move(frame), now_);
}

void TcpPeer::deliver(const PeerSegment& segment) {
  TcpFields fields{.source_port = segment.source_port.value_or(port),
                   .destination_port = segment.destination_port.value_or(host_port),
                   .seq = segment.seq,
                   .ack = segment.ack,
                   .flags = segment.flags,
                   .window = segment.window,
                   .urgent = segment.urgent,
                   .options = segment.options};
  ByteVector packet = ipv4_packet({.source = kPeer, .destination = kHost, .protocol = 6, .tos = segment.tos},
                                  tcp_segment(kPeer, kHost, fields, bytes_of(segment.payload)));
  receive(packet);
}

void TcpPeer::send(const PeerSegment& segment) {
  deliver(segment);
  run();
}

void TcpPeer::send_all(const std::vector<PeerSegment>& segments) {
  for (const PeerSegment& segment : segments) deliver(segment);
  run();
}

void TcpPeer::send_packet(const ByteVector& packet) {
  receive(packet);
  run();
}

void TcpPeer::send_icmp(uint8_t type, uint8_t code, uint32_t info, uint32_t quoted_seq) {
  ByteVector quoted = ipv4_packet(
      {.source = kHost, .destination = kPeer, .protocol = 6, .total_length = uint16_t{40}},
      tcp_segment(kHost, kPeer,
                  {.source_port = host_port, .destination_port = port, .seq = quoted_seq, .flags = "S"}));
  quoted.resize(28);
  ByteVector packet = ipv4_packet({.source = kPeer, .destination = kHost, .protocol = 1},
                                  icmp_message(type, code, info, quoted));
  receive(packet);
  run();
}

void TcpPeer::collect() {
  for (CapturedFrame& frame :
       take_frames(host_->transmit_queue(), host_->frames(), host_->network().link().kind))
    sent_.push_back(std::move(frame));
}

void TcpPeer::run() {
  host_->run(now_);
  collect();
}

void TcpPeer::advance(Duration duration) {
  Instant end = now_ + duration;
  while (host_->next_deadline() <= end) {
    now_ = std::max(now_, host_->next_deadline());
    run();
  }
  now_ = end;
  run();
}

bool TcpPeer::advance_until_sent(Duration limit) {
  Instant end = now_ + limit;
  while (sent_.empty() && host_->next_deadline() <= end) {
    now_ = std::max(now_, host_->next_deadline());
    run();
  }
  return !sent_.empty();
}

std::vector<CapturedFrame> TcpPeer::take() {
  collect();
  return std::exchange(sent_, {});
}

}  // namespace ustack::test
