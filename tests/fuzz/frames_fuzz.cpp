// Arbitrary frames to a host that listens and holds connections, mixed with what its program and the clock
// do.
//
// The input is a little program: a byte of link properties, then operations (see run()). Frames are built
// over valid templates that follow the connections' sequence numbers, so that mutations reach deep states;
// every frame that the host sends is checked; at the end nothing may be left of what the arena gave.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "stack/base/checksum.h"
#include "stack/host.h"
#include "stack/net/checksum.h"
#include "stack/net/neighbour_discovery.h"
#include "stack/socket/datagram_socket.h"
#include "stack/tcp/protocol.h"
#include "tests/fuzz/input.h"
#include "tests/support/heap_arena.h"
#include "tests/support/packet_view.h"
#include "tests/support/seeded_random.h"
#include "tests/support/v6_address.h"

namespace ustack::test {
namespace {

const IpAddress kHost = IpAddress::v4(192, 0, 2, 2), kPeer = IpAddress::v4(192, 0, 2, 1),
                kFar = IpAddress::v4(198, 51, 100, 7), kGateway = IpAddress::v4(192, 0, 2, 254);
const IpAddress kHost6 = v6(0x2001, 0xdb8, 2), kPeer6 = v6(0x2001, 0xdb8, 1), kLocal6 = v6(0xfe80, 0, 2);
constexpr MacAddress kHostMac{{std::byte{2}, {}, {}, {}, {}, std::byte{2}}};
constexpr MacAddress kPeerMac{{std::byte{2}, {}, {}, {}, {}, std::byte{1}}};
constexpr uint16_t kMtu = 1500;
constexpr uint8_t kTcp = 6, kIcmp = 1, kUdp = 17;

/// Operations and frames of one input that are played at most, so that none takes long.
constexpr int kMostOperations = 300;

[[noreturn]] void wrong(const char* what) {
  std::fprintf(stderr, "the host sent or kept what it must not: %s\n", what);
  std::abort();
}

/// What the peer knows of a connection, from the host's segments.
struct Conversation {
  IpAddress peer = kPeer;
  uint16_t peer_port = 0, host_port = 0;
  uint32_t peer_next = 0;  // the peer's next sequence number: what the host acknowledges
  uint32_t host_next = 0;  // the host's next
};

class Machine {
 public:
  Machine(const uint8_t* data, size_t size) : input_(data, size) {
    uint8_t flags = input_.u8();
    ethernet_ = (flags & 1) == 0;
    HostConfig config;
    LinkInfo& link = config.network.link;
    link.kind = ethernet_ ? LinkInfo::Kind::ethernet : LinkInfo::Kind::ip;
    link.mtu = kMtu;
    link.mac = kHostMac;
    link.checksum_offload = (flags & 6) != 0;
    link.tcp_segmentation_v4 = (flags & 4) != 0;
    link.tcp_segmentation_v6 = link.tcp_segmentation_v4;
    config.network.addresses[0] = {kHost, 24};
    config.network.addresses[1] = {kHost6, 64};
    config.network.addresses[2] = {kLocal6, 64};
    config.network.address_count = 3;
    config.network.gateways[0] = kGateway;
    config.network.gateway_count = 1;
    config.settings.tcp_timestamps = (flags & 8) == 0;
    config.settings.tcp_sack = (flags & 16) == 0;
    config.settings.tcp_window_scaling = (flags & 32) == 0;
    config.settings.tcp_abort_on_overflow = (flags & 64) != 0;
    config.fiber_stacks_carved = 0;
    host_ = Host::create(arena_, random_, config, now_);
    host_->network().start();
  }

  ~Machine() {
    for (Socket* socket : sockets_) socket->release();
    if (datagrams_ != nullptr) datagrams_->release();
    arena_.never_fail();
    settle();
    Host::destroy(host_);
    if (arena_.objects() != 0) wrong("objects in the arena after its end");
  }

  void run() {
    open();
    for (int i = 0; i < kMostOperations && !input_.empty(); ++i) step();
  }

 private:
  // --- what the fuzzer's operations are ---

  void step() {
    const uint8_t operation = input_.u8();
    if (operation >= 240) return datagram(operation % 5);
    if (operation >= 232) return ipv6(operation % 8);
    switch (operation % 8) {
      case 0: {
        std::vector<std::byte> frame;
        input_.append(frame, input_.u16() % 2048);
        return deliver(std::move(frame));
      }
      case 1:
        return tcp();
      case 2:
        return icmp();
      case 3:
        return arp();
      case 4:
        return fragment();
      case 5:
        now_ += Duration(int64_t{1} << (input_.u8() % 41));  // up to 18 minutes
        return settle();
      case 6:
        return call();
      case 7:
        return set_offload();
    }
  }

  /// A segment of one of the conversations: what the peer would send, give or take.
  void tcp() {
    uint8_t which = input_.u8();
    Conversation stranger{.peer = (which & 0x80) != 0 ? kFar : kPeer,
                          .peer_port = static_cast<uint16_t>(1000 + (which & 0x0f)),
                          .host_port = 80};
    Conversation& conversation = which % 4 == 3 ? stranger : conversations_[which % 4];
    uint8_t flags = input_.u8();
    uint32_t seq = conversation.peer_next + static_cast<uint32_t>(static_cast<int16_t>(input_.u16()));
    uint32_t ack = conversation.host_next + static_cast<uint32_t>(static_cast<int16_t>(input_.u16()));
    uint16_t window = input_.u16();
    std::vector<std::byte> options;
    input_.append(options, (input_.u8() % 11) * 4u);
    size_t payload = input_.u16() % 3000;
    if ((which & 0x40) == 0) payload %= 64;
    deliver_packet(conversation.peer, kTcp, segment(conversation, flags, seq, ack, window, options, payload));
  }

  std::vector<std::byte> segment(const Conversation& c, uint8_t flags, uint32_t seq, uint32_t ack,
                                 uint16_t window, const std::vector<std::byte>& options, size_t payload) {
    std::vector<std::byte> bytes(20);
    store_be16(&bytes[0], c.peer_port);
    store_be16(&bytes[2], c.host_port);
    store_be32(&bytes[4], seq);
    store_be32(&bytes[8], ack);
    bytes[12] = static_cast<std::byte>((20 + options.size()) / 4 << 4);
    bytes[13] = std::byte{flags};
    store_be16(&bytes[14], window);
    bytes.insert(bytes.end(), options.begin(), options.end());
    bytes.resize(bytes.size() + payload, std::byte{'x'});
    mutate(bytes);
    uint32_t sum =
        pseudo_header_sum(c.peer, c.peer.is_v6() ? kHost6 : kHost, kTcp, static_cast<uint32_t>(bytes.size()));
    store_be16(&bytes[16], 0);
    store_be16(&bytes[16], checksum_finish(checksum_add(bytes, sum)));
    return bytes;
  }

  /// Of IPv6: extension headers, fragments, ICMPv6 and its errors, neighbour discovery, and a connection.
  void ipv6(int what) {
    const uint8_t flags = input_.u8();
    const IpAddress source = (flags & 1) != 0   ? v6(0xfe80, 0, 1)
                             : (flags & 2) != 0 ? IpAddress::any(Family::ipv6)
                                                : kPeer6;
    const IpAddress to = (flags & 4) != 0 ? all_nodes() : (flags & 8) != 0 ? solicited_node(kHost6) : kHost6;
    const uint8_t hops = (flags & 16) != 0 ? 255 : (flags & 32) != 0 ? 1 : 64;
    std::vector<std::byte> payload;
    switch (what) {
      case 0:
      case 1: {  // whatever follows the header
        const uint8_t next = input_.u8();
        input_.append(payload, input_.u8());
        payload.resize(payload.size() + input_.u16() % 1400);
        return deliver_packet6(source, to, next, hops, payload);
      }
      case 2: {  // a part of a datagram
        payload.resize(8);
        payload[0] = std::byte{input_.u8()};
        store_be16(&payload[2], input_.u16());
        store_be32(&payload[4], input_.u8() % 4);
        input_.append(payload, input_.u8());
        payload.resize(payload.size() + input_.u16() % 1400);
        return deliver_packet6(source, to, ip_protocol::kFragment, hops, payload);
      }
      case 3: {  // any message
        payload.resize(4);
        payload[0] = std::byte{input_.u8()};
        payload[1] = std::byte{input_.u8()};
        input_.append(payload, input_.u8());
        break;
      }
      case 4: {  // of neighbour discovery
        NeighbourMessage message{
            .type = (flags & 64) != 0 ? icmpv6::kNeighbourAdvertisement : icmpv6::kNeighbourSolicitation,
            .solicited = (flags & 128) != 0,
            .override_known = true,
            .target = v6(0x2001, 0xdb8, input_.u8()),
            .mac = MacAddress{{std::byte{2}, {}, {}, {}, {}, std::byte{input_.u8()}}}};
        payload.resize(NeighbourMessage::kWhole);
        message.emit(payload.data());
        mutate(payload);
        break;
      }
      case 5: {  // an error about a segment of the connection's, or a datagram
        payload.resize(8);
        payload[0] = std::byte{static_cast<uint8_t>(1 + input_.u8() % 4)};
        payload[1] = std::byte{static_cast<uint8_t>(input_.u8() % 8)};
        store_be32(&payload[4], input_.u16());
        const bool segment = input_.u8() % 4 != 0;
        std::vector<std::byte> quoted = ip6_header(kHost6, kPeer6, segment ? kTcp : kUdp, 64, 1020);
        quoted.resize(48 + input_.u8());
        store_be16(&quoted[40], segment ? conversation6_.host_port : uint16_t{5000});
        store_be16(&quoted[42], segment ? conversation6_.peer_port : uint16_t{53});
        store_be32(&quoted[44],
                   conversation6_.host_next + static_cast<uint32_t>(static_cast<int16_t>(input_.u16())));
        mutate(quoted);
        payload.insert(payload.end(), quoted.begin(), quoted.end());
        break;
      }
      default: {
        const uint8_t tcp_flags = input_.u8();
        const uint32_t seq =
            conversation6_.peer_next + static_cast<uint32_t>(static_cast<int16_t>(input_.u16()));
        const uint32_t ack =
            conversation6_.host_next + static_cast<uint32_t>(static_cast<int16_t>(input_.u16()));
        return deliver_packet6(kPeer6, kHost6, kTcp, 64,
                               segment(conversation6_, tcp_flags, seq, ack, 0xffff, {}, input_.u16() % 2000));
      }
    }
    if (payload.size() >= 4) {
      store_be16(&payload[2], 0);
      store_be16(&payload[2], icmpv6::checksum(source, to, payload));
    }
    deliver_packet6(source, to, ip_protocol::kIcmpV6, hops, payload);
  }

  /// Of UDP: what comes, what comes back of what was sent, and what the program does.
  void datagram(int what) {
    switch (what) {
      case 0: {
        const uint8_t flags = input_.u8();
        std::vector<std::byte> bytes(8);
        store_be16(&bytes[0], static_cast<uint16_t>(53 + flags % 2));
        store_be16(&bytes[2], static_cast<uint16_t>(5000 + flags / 2 % 2));
        bytes.resize(8 + input_.u16() % 3000, std::byte{'u'});
        store_be16(&bytes[4], static_cast<uint16_t>(bytes.size()));
        mutate(bytes);
        const bool v6 = (flags & 0x10) != 0;
        const IpAddress source = v6 ? kPeer6 : (flags & 0x80) != 0 ? kFar : kPeer;
        const uint32_t sum =
            pseudo_header_sum(source, v6 ? kHost6 : kHost, kUdp, static_cast<uint32_t>(bytes.size()));
        store_be16(&bytes[6], 0);
        if ((flags & 0x40) == 0) store_be16(&bytes[6], checksum_finish(checksum_add(bytes, sum)));
        if (v6) return deliver_packet6(source, kHost6, kUdp, flags, bytes);
        return deliver_packet(source, kUdp, bytes, flags, (flags & 0x20) != 0 ? input_.u16() : 0x4000);
      }
      case 1: {
        std::vector<std::byte> message(8);
        message[0] = std::byte{input_.u8()};
        message[1] = std::byte{input_.u8()};
        store_be16(&message[6], input_.u16());
        std::vector<std::byte> quoted = ip_header(kHost, kPeer, kUdp, 8 + 100, 0, 0x4000);
        quoted.resize(28 + input_.u8());
        store_be16(&quoted[20], 5000);
        store_be16(&quoted[22], 53);
        mutate(quoted);
        message.insert(message.end(), quoted.begin(), quoted.end());
        store_be16(&message[2], checksum_of(message));
        return deliver_packet(kPeer, kIcmp, message);
      }
      case 2: {
        const uint8_t argument = input_.u8();
        Result<TxFrame*> frame = datagrams_->reserve(size_t{argument} * argument);
        if (!frame.ok()) break;
        if (argument % 16 == 0)
          datagrams_->abandon(*frame);
        else
          (void)datagrams_->send(*frame, {.to = {argument % 2 == 0   ? kFar
                                                 : argument % 4 == 1 ? kPeer
                                                                     : kPeer6,
                                                 argument}});
        break;
      }
      case 3: {
        const uint8_t argument = input_.u8();
        Result<Datagram*> taken = datagrams_->take(argument % 2 != 0);
        if (taken.ok()) datagrams_->done(*taken);
        (void)datagrams_->take_report();
        break;
      }
      case 4: {
        const uint8_t argument = input_.u8();
        const int on = argument % 2;
        if (argument < 128)
          (void)datagrams_->set_option(argument < 64 ? IPPROTO_IP : IPPROTO_IPV6,
                                       argument < 64 ? IP_RECVERR : IPV6_RECVERR,
                                       std::as_bytes(std::span(&on, 1)));
        else
          (void)datagrams_->connect({on == 0 ? IpAddress() : argument % 4 == 1 ? kPeer : kPeer6, 53});
        break;
      }
    }
    settle();
  }

  void icmp() {
    std::vector<std::byte> message(4);
    uint8_t type = input_.u8();
    message[0] = std::byte{type};
    message[1] = std::byte{input_.u8()};
    input_.append(message, 4);
    if (type == 8 || type == 0) {
      input_.append(message, input_.u16() % 256);
    } else {
      // Quotes a segment that the host might have sent.
      const Conversation& c = conversations_[input_.u8() % 3];
      std::vector<std::byte> quoted = ip_header(kHost, c.peer, kTcp, 20 + 1000, 0, 0x4000);
      quoted.resize(28);
      store_be16(&quoted[20], c.host_port);
      store_be16(&quoted[22], c.peer_port);
      store_be32(&quoted[24], c.host_next + static_cast<uint32_t>(static_cast<int16_t>(input_.u16())));
      mutate(quoted);
      message.insert(message.end(), quoted.begin(), quoted.end());
    }
    store_be16(&message[2], 0);
    store_be16(&message[2], checksum_of(message));
    deliver_packet((type & 1) != 0 ? kFar : kPeer, kIcmp, message);
  }

  void arp() {
    std::vector<std::byte> frame = ethernet_header(0x0806);
    uint8_t operation = input_.u8(), sender = input_.u8(), target = input_.u8(), mac = input_.u8();
    const std::byte fixed[] = {{},           std::byte{1}, std::byte{8}, {},
                               std::byte{6}, std::byte{4}, {},           std::byte{operation}};
    frame.insert(frame.end(), std::begin(fixed), std::end(fixed));
    append_mac(frame, MacAddress{{std::byte{2}, {}, {}, {}, {}, std::byte{mac}}});
    append_address(frame, IpAddress::v4(192, 0, 2, sender));
    append_mac(frame, kHostMac);
    append_address(frame, IpAddress::v4(192, 0, 2, target));
    mutate(frame);
    deliver(std::move(frame));
  }

  void fragment() {
    uint16_t identification = input_.u16() % 8, place = input_.u16();
    uint8_t protocol = input_.u8() % 4 == 0 ? input_.u8() : kTcp;
    std::vector<std::byte> payload;
    input_.append(payload, input_.u8());
    payload.resize(payload.size() + input_.u16() % 1400);
    deliver_packet(kPeer, protocol, payload, identification, place);
  }

  /// What the program does.
  void call() {
    uint8_t what = input_.u8(), argument = input_.u8();
    if (what >= 250) return what & 1 ? arena_.never_fail() : arena_.fail_after(argument);
    if (sockets_.empty()) return;
    size_t index = argument % sockets_.size();
    Socket& socket = *sockets_[index];
    switch (what % 10) {
      case 0:
        if (auto room = socket.reserve_send(size_t{argument} * argument); room.ok())
          socket.commit_send(room->bytes, {});
        break;
      case 1:
        if (auto view = socket.view_receive(size_t{argument} * argument + 1, 0); view.ok())
          socket.consume(view->bytes);
        break;
      case 2:
        (void)socket.shutdown(static_cast<ShutdownHow>(what / 10 % 3));
        break;
      case 3:
        socket.release();
        sockets_.erase(sockets_.begin() + static_cast<long>(index));
        break;
      case 4:
        if (auto accepted = socket.accept(); accepted.ok()) sockets_.push_back(*accepted);
        break;
      case 5:
        (void)socket.connect({kPeer, static_cast<uint16_t>(argument)});
        break;
      case 6:
        if (sockets_.size() < 20)
          if (auto fresh = host_->open_socket(AF_INET, SOCK_STREAM, 0); fresh.ok())
            sockets_.push_back(*fresh);
        break;
      case 7: {
        static constexpr int kNames[] = {TCP_NODELAY,  TCP_CORK,         TCP_KEEPIDLE,
                                         TCP_QUICKACK, TCP_USER_TIMEOUT, TCP_MAXSEG};
        int value = argument;
        (void)socket.set_option(IPPROTO_TCP, kNames[what / 10 % 6], std::as_bytes(std::span(&value, 1)));
        break;
      }
      case 8: {
        static constexpr int kNames[] = {SO_RCVBUF, SO_SNDBUF, SO_KEEPALIVE, SO_REUSEADDR, SO_OOBINLINE};
        int value = argument * 16;
        (void)socket.set_option(SOL_SOCKET, kNames[what / 10 % 5], std::as_bytes(std::span(&value, 1)));
        break;
      }
      case 9:
        (void)socket.receive_urgent(false);
        (void)socket.readiness();
        break;
    }
    settle();
  }

  /// What the next frame's link header claims.
  void set_offload() {
    uint8_t bits = input_.u8();
    next_offload_.partial_checksum = (bits & 1) != 0;
    next_offload_.checksum_valid = (bits & 2) != 0;
    next_offload_.ecn = (bits & 4) != 0;
    next_offload_.segmentation = static_cast<Offload::Segmentation>(bits / 8 % 3);
    next_offload_.checksum_start = input_.u16();
    next_offload_.checksum_offset = input_.u8();
    next_offload_.segment_size = input_.u16() % 4096;
    next_offload_.header_length = input_.u8();
  }

  void mutate(std::vector<std::byte>& bytes) {
    for (uint8_t n = input_.u8() % 16 == 0 ? input_.u8() % 8 : 0; n > 0 && !bytes.empty(); --n) {
      size_t at = input_.u16() % bytes.size();
      bytes[at] ^= std::byte{input_.u8()};
    }
  }

  // --- frames in ---

  std::vector<std::byte> ethernet_header(uint16_t type) {
    std::vector<std::byte> bytes;
    append_mac(bytes, kHostMac);
    append_mac(bytes, kPeerMac);
    bytes.resize(14);
    store_be16(&bytes[12], type);
    return bytes;
  }
  static void append_mac(std::vector<std::byte>& out, const MacAddress& mac) {
    out.insert(out.end(), mac.bytes.begin(), mac.bytes.end());
  }
  static void append_address(std::vector<std::byte>& out, const IpAddress& address) {
    out.insert(out.end(), address.data(), address.data() + address.size());
  }
  static std::vector<std::byte> ip_header(const IpAddress& source, const IpAddress& destination,
                                          uint8_t protocol, size_t payload, uint16_t identification,
                                          uint16_t fragment) {
    std::vector<std::byte> bytes(12);
    bytes[0] = std::byte{0x45};
    store_be16(&bytes[2], static_cast<uint16_t>(20 + payload));
    store_be16(&bytes[4], identification);
    store_be16(&bytes[6], fragment);
    bytes[8] = std::byte{64};
    bytes[9] = std::byte{protocol};
    append_address(bytes, source);
    append_address(bytes, destination);
    store_be16(&bytes[10], checksum_of(bytes));
    return bytes;
  }

  void deliver_packet(const IpAddress& source, uint8_t protocol, const std::vector<std::byte>& payload,
                      uint16_t identification = 0, uint16_t fragment = 0x4000) {
    std::vector<std::byte> frame;
    if (ethernet_) frame = ethernet_header(0x0800);
    std::vector<std::byte> header =
        ip_header(source, kHost, protocol, payload.size(), identification, fragment);
    frame.insert(frame.end(), header.begin(), header.end());
    frame.insert(frame.end(), payload.begin(), payload.end());
    deliver(std::move(frame));
  }

  static std::vector<std::byte> ip6_header(const IpAddress& source, const IpAddress& destination,
                                           uint8_t protocol, uint8_t hops, size_t payload) {
    std::vector<std::byte> bytes(8);
    bytes[0] = std::byte{0x60};
    store_be16(&bytes[4], static_cast<uint16_t>(payload));
    bytes[6] = std::byte{protocol};
    bytes[7] = std::byte{hops};
    append_address(bytes, source);
    append_address(bytes, destination);
    return bytes;
  }
  void deliver_packet6(const IpAddress& source, const IpAddress& to, uint8_t protocol, uint8_t hops,
                       const std::vector<std::byte>& payload) {
    std::vector<std::byte> frame;
    if (ethernet_) frame = ethernet_header(0x86dd);
    std::vector<std::byte> header = ip6_header(source, to, protocol, hops, payload.size());
    frame.insert(frame.end(), header.begin(), header.end());
    frame.insert(frame.end(), payload.begin(), payload.end());
    deliver(std::move(frame));
  }

  void deliver(std::vector<std::byte> bytes) {
    RxFrame frame;
    frame.data.block = host_->blocks().allocate(static_cast<uint32_t>(bytes.size()));
    if (!frame.data.block) return;
    frame.data.length = static_cast<uint32_t>(bytes.size());
    if (!bytes.empty()) std::memcpy(frame.data.data(), bytes.data(), bytes.size());
    frame.offload = std::exchange(next_offload_, Offload());
    frame.arrived = now_;
    host_->receive(std::move(frame), now_);
    settle();
  }

  // --- frames out ---

  void settle() {
    host_->run(now_);
    while (TxFrame* frame = host_->transmit_queue().pop_front()) {
      WireFrame wire;
      wire.offload = frame->offload;
      MutableBytes header = frame->header();
      wire.bytes.assign(header.begin(), header.end());
      for (const Slice& slice : frame->payload()) {
        Bytes bytes = slice.bytes();
        wire.bytes.insert(wire.bytes.end(), bytes.begin(), bytes.end());
      }
      host_->frames().release(frame);
      judge(wire);
    }
  }

  void judge(const WireFrame& frame) {
    const Offload& offload = frame.offload;
    size_t link_header = ethernet_ ? 14 : 0;
    bool superframe = offload.segmentation != Offload::Segmentation::none;
    if (!superframe && frame.bytes.size() > kMtu + link_header) wrong("a packet larger than the MTU");
    if (superframe && offload.segment_size + offload.header_length > kMtu + link_header)
      wrong("segments over the MTU");
    if (ethernet_ && frame.bytes.size() < 14) wrong("less than an Ethernet header");
    if (ethernet_ && load_be16(&frame.bytes[12]) == 0x0806) return;
    if (frame.bytes.size() < link_header + 20) wrong("less than an IP header");
    const std::byte* ip = &frame.bytes[link_header];
    const bool v6 = (ip[0] >> 4) == std::byte{6};
    size_t length = v6 ? size_t{40} + load_be16(ip + 4) : load_be16(ip + 2);
    if (length + link_header != frame.bytes.size()) wrong("an IP length that is not the frame's");
    if (v6) {
      if (ip[6] == std::byte{ip_protocol::kIcmpV6} &&
          icmpv6::checksum(IpAddress::from_bytes(Family::ipv6, ip + 8),
                           IpAddress::from_bytes(Family::ipv6, ip + 24),
                           Bytes(frame.bytes).subspan(link_header + 40)) != 0)
        wrong("a bad checksum of ICMPv6");
    } else if (checksum_of(Bytes(ip, static_cast<size_t>(ip[0] & std::byte{15}) * 4)) != 0)
      wrong("a bad IP checksum");
    auto view = TcpView::parse(frame, ethernet_);
    if (!view) {
      if (v6 ? ip[6] == std::byte{kTcp} : ip[9] == std::byte{kTcp} && (load_be16(ip + 6) & 0x3fff) == 0)
        wrong("a malformed TCP segment");
      return;
    }
    Bytes tcp = Bytes(frame.bytes).subspan(view->tcp_at);
    auto tcp_length = static_cast<uint32_t>(tcp.size());
    uint32_t pseudo = pseudo_header_sum(view->source, view->destination, kTcp, tcp_length);
    if (!offload.partial_checksum && checksum_finish(checksum_add(tcp, pseudo)) != 0)
      wrong("a bad TCP checksum");
    if (offload.partial_checksum && offload.checksum_start != view->tcp_at)
      wrong("a checksum start that is not TCP's");
    if (v6 && view->source_port == conversation6_.host_port) {
      conversation6_.host_next =
          view->seq + static_cast<uint32_t>(view->payload) + (view->syn() ? 1 : 0) + (view->fin() ? 1 : 0);
      if (view->ack_flag()) conversation6_.peer_next = view->ack;
    }
    if (v6) return;
    for (Conversation& c : conversations_) {
      if (view->source_port != c.host_port || view->destination_port != c.peer_port) continue;
      c.host_next =
          view->seq + static_cast<uint32_t>(view->payload) + (view->syn() ? 1 : 0) + (view->fin() ? 1 : 0);
      if (view->ack_flag()) c.peer_next = view->ack;
    }
    if (view->syn() && !view->ack_flag() && view->destination_port == conversations_[1].peer_port)
      conversations_[1].host_port = view->source_port;
    if (view->syn() && !view->ack_flag() && view->destination_port == conversations_[2].peer_port)
      conversations_[2].host_port = view->source_port;
    if (view->syn() && !view->ack_flag()) {
      for (Conversation& c : conversations_)
        if (view->destination_port == c.peer_port && view->source_port == c.host_port)
          c.host_next = view->seq + 1;
    }
  }

  // --- the state that the input finds: one accepted connection, one opened, one being opened, one listener
  // ---

  void open() {
    if (ethernet_) {
      std::vector<std::byte> frame = ethernet_header(0x0806);
      const std::byte fixed[] = {{},           std::byte{1}, std::byte{8}, {},
                                 std::byte{6}, std::byte{4}, {},           std::byte{1}};
      frame.insert(frame.end(), std::begin(fixed), std::end(fixed));
      append_mac(frame, kPeerMac);
      append_address(frame, kPeer);
      append_mac(frame, MacAddress{});
      append_address(frame, kHost);
      deliver(std::move(frame));
    }
    datagrams_ = (*host_->open_socket(AF_INET6, SOCK_DGRAM, 0))->datagrams();
    if (!datagrams_->bind({IpAddress::any(Family::ipv6), 5000}).ok())
      wrong("no socket of datagrams at the start");
    Socket* listener = *host_->open_socket(AF_INET, SOCK_STREAM, 0);
    sockets_.push_back(listener);
    if (!listener->bind({IpAddress::any(Family::ipv4), 80}).ok() || !listener->listen(4).ok())
      wrong("no listener at the start");

    conversations_[0] = {.peer_port = 4000, .host_port = 80, .peer_next = 1'000'000};
    handshake_options_ = {std::byte{2}, std::byte{4}, std::byte{5}, std::byte{0xb4},
                          std::byte{1}, std::byte{3}, std::byte{3}, std::byte{7}};
    plain_segment(conversations_[0], 0x02, conversations_[0].peer_next, 0, handshake_options_);
    plain_segment(conversations_[0], 0x10, conversations_[0].peer_next, conversations_[0].host_next, {});
    if (auto accepted = listener->accept(); accepted.ok()) sockets_.push_back(*accepted);

    conversations_[1] = {.peer_port = 7, .peer_next = 2'000'000};
    conversations_[2] = {.peer_port = 9, .peer_next = 3'000'000};
    for (uint16_t port : {uint16_t{7}, uint16_t{9}}) {
      Socket* socket = *host_->open_socket(AF_INET, SOCK_STREAM, 0);
      sockets_.push_back(socket);
      (void)socket->connect({kPeer, port});
      settle();
    }
    plain_segment(conversations_[1], 0x12, conversations_[1].peer_next, conversations_[1].host_next,
                  handshake_options_);
    open_over_ipv6();
    if (sockets_.size() != 6 || host_->counters().TcpCurrEstab != 3) wrong("no connections at the start");
  }

  void open_over_ipv6() {
    if (ethernet_) {
      std::vector<std::byte> message(NeighbourMessage::kWhole);
      NeighbourMessage{.target = kHost6, .mac = kPeerMac}.emit(message.data());
      store_be16(&message[2], icmpv6::checksum(kPeer6, kHost6, message));
      deliver_packet6(kPeer6, kHost6, ip_protocol::kIcmpV6, 255, message);
    }
    Socket* listener = *host_->open_socket(AF_INET6, SOCK_STREAM, 0);
    sockets_.push_back(listener);
    if (!listener->bind({IpAddress::any(Family::ipv6), 81}).ok() || !listener->listen(4).ok())
      wrong("no listener over IPv6 at the start");
    conversation6_ = {.peer = kPeer6, .peer_port = 4000, .host_port = 81, .peer_next = 4'000'000};
    plain_segment(conversation6_, 0x02, conversation6_.peer_next, 0, handshake_options_);
    plain_segment(conversation6_, 0x10, conversation6_.peer_next, conversation6_.host_next, {});
    if (auto accepted = listener->accept(); accepted.ok()) sockets_.push_back(*accepted);
  }

  void plain_segment(const Conversation& c, uint8_t flags, uint32_t seq, uint32_t ack,
                     const std::vector<std::byte>& options) {
    Input nothing(nullptr, 0);
    std::swap(nothing, input_);
    std::vector<std::byte> bytes = segment(c, flags, seq, ack, 0xffff, options, 0);
    if (c.peer.is_v6())
      deliver_packet6(c.peer, kHost6, kTcp, 64, bytes);
    else
      deliver_packet(c.peer, kTcp, bytes);
    std::swap(nothing, input_);
  }

  Input input_;
  bool ethernet_ = true;
  Instant now_{Duration(1000s)};
  HeapArena arena_;
  SeededRandom random_{1};
  Host* host_ = nullptr;
  DatagramSocket* datagrams_ = nullptr;
  std::vector<Socket*> sockets_;
  Conversation conversations_[3], conversation6_;
  std::vector<std::byte> handshake_options_;
  Offload next_offload_;
};

}  // namespace
}  // namespace ustack::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ustack::test::Machine(data, size).run();
  return 0;
}
