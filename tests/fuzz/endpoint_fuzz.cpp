// One connection that is driven by segments derived from its real state: numbers in and around its windows,
// acknowledgments that are nearly always plausible, SACK blocks of what is in flight, timestamps of its
// clock.
//
// The input is a little program (see step()). The peer's byte at sequence number s is a function of s, as is
// the program's of its position, so that every byte that either side is shown can be judged. What must hold
// after each step stands in judge().
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "stack/tcp/endpoint.h"
#include "tests/fuzz/input.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

/// Steps of one input that are played at most.
constexpr int kMostSteps = 400;

[[noreturn]] void wrong(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

char byte_at(uint32_t position) { return static_cast<char>(position * 2654435761u >> 24); }

std::string bytes_at(uint32_t position, size_t n) {
  std::string text(n, 0);
  for (size_t i = 0; i < n; ++i) text[i] = byte_at(position + static_cast<uint32_t>(i));
  return text;
}

class Driver {
 public:
  Driver(const uint8_t* data, size_t size) : input_(data, size), peer_(options()) {
    open();
    note_connection();
  }

  void run() {
    for (int i = 0; i < kMostSteps && !input_.empty(); ++i) {
      step();
      judge();
    }
    finish();
  }

 private:
  TcpPeer::Options options() {
    uint8_t bits = input_.u8(), more = input_.u8();
    TcpPeer::Options options;
    Settings& settings = options.settings;
    settings.tcp_timestamps = (bits & 1) == 0;
    settings.tcp_sack = (bits & 2) == 0;
    settings.tcp_window_scaling = (bits & 4) == 0;
    settings.tcp_syncookies = (bits & 8) != 0 ? 2 : 1;
    settings.tcp_fastopen = 3 | 0x200 | 0x400;
    settings.tcp_rmem = {4096, more % 4 == 0 ? 8192 : 131072, 1 << 20};
    options.link.mtu = (more & 4) != 0 ? 576 : 1500;
    passive_ = (bits & 16) != 0;
    syn_data_ = (bits & 32) != 0;
    offer_ = bits >> 6 | (more & 0xc0) >> 4;
    return options;
  }

  ByteVector syn_options() const {
    ByteVector offered = mss_option(1460);
    if ((offer_ & 1) == 0) offered = offered + timestamps_option(1000, 0);
    if ((offer_ & 2) == 0) offered = offered + sack_permitted_option();
    if ((offer_ & 4) == 0) offered = offered + window_scale_option(3);
    return offered;
  }

  void open() {
    peer_iss_ = input_.u32();
    if (passive_) {
      listener_ = peer_.listen();
      peer_.host_port = 80;
      peer_.port = 999;
      std::string data = syn_data_ ? bytes_at(peer_iss_ + 1, 100) : std::string();
      peer_.send({.seq = peer_iss_, .flags = "S", .payload = data, .options = syn_options()});
      for (const CapturedFrame& frame : peer_.take()) {
        if (!frame.tcp) continue;
        peer_.iss = frame.tcp->seq;
        peer_next_ = frame.tcp->ack;
        if (frame.tcp->timestamps) host_stamp_ = frame.tcp->timestamps->first;
      }
      send({.seq = peer_next_, .ack = peer_.iss + 1}, 0);
      socket_ = listener_.accept();
    } else {
      socket_ = peer_.connect();
      peer_.take();
      peer_next_ = peer_iss_ + 1;
      peer_.send({.seq = peer_iss_, .ack = peer_.iss + 1, .flags = "SA", .options = syn_options()});
    }
    if (!socket_) wrong("no connection");
  }

  tcp::Endpoint& endpoint() { return TcpPeer::endpoint(socket_); }
  tcp::Tcb& tcb() { return endpoint().tcb(); }

  /// From now on numbers are counted.
  void note_connection() {
    right_edge_ = tcb().rcv.rcv_adv;
    read_ = peer_iss_ + 1;
    judge();
  }

  // --- what happens ---

  void step() {
    uint8_t what = input_.u8();
    switch (what % 16) {
      default:
        return segment();
      case 8:
        return acknowledge();
      case 9: {
        size_t n = size_t{input_.u8()} * 64;
        if (!socket_) return;
        int64_t sent = socket_.send(bytes_at(written_, n));
        if (sent > 0) written_ += static_cast<uint32_t>(sent);
        return peer_.run();
      }
      case 10:
        return read(size_t{input_.u8()} * 64 + 1);
      case 11:
        return peer_.advance(Duration(int64_t{1} << (input_.u8() % 38)));  // up to 137 s
      case 12:
        return call();
      case 13:
        return icmp();
      case 14:
        if (peer_.host().next_deadline() < peer_.now() + 3600s)
          peer_.advance(std::max(peer_.host().next_deadline() - peer_.now(), Duration(0)));
        return;
      case 15:
        return close();
    }
  }

  /// A number near one that means something to the receiver.
  uint32_t sequence_number() {
    tcp::Receiver& rcv = tcb().rcv;
    uint8_t choice = input_.u8();
    auto near = static_cast<uint32_t>(static_cast<int8_t>(input_.u8()));
    switch (choice % 6) {
      case 0:
        return rcv.rcv_nxt.value();
      case 1:
        return rcv.rcv_nxt.value() + near;
      case 2:
        return rcv.rcv_adv.value() + near;
      case 3:
        return rcv.rcv_nxt.value() + input_.u16();
      case 4: {
        tcp::SackBlock block{rcv.rcv_nxt, rcv.rcv_nxt};
        (void)rcv.reassembly().sack_blocks(std::span(&block, 1));
        return ((choice & 64) != 0 ? block.start : block.end).value() + near;
      }
      default:
        return rcv.rcv_nxt.value() - input_.u16();
    }
  }

  uint32_t acknowledgment() {
    tcp::Sender& snd = tcb().snd;
    uint8_t choice = input_.u8();
    auto near = static_cast<uint32_t>(static_cast<int8_t>(input_.u8()));
    uint32_t flight = snd.snd_nxt - snd.snd_una;
    switch (choice % 5) {
      case 0:
        return snd.snd_nxt.value();
      case 1:
        return snd.snd_una.value();
      case 2:
        return snd.snd_una.value() + (flight != 0 ? input_.u16() % (flight + 1) : 0);
      case 3:
        return snd.snd_una.value() + near;
      default:
        return snd.snd_nxt.value() + near;
    }
  }

  ByteVector segment_options() {
    uint8_t choice = input_.u8();
    ByteVector bytes;
    if ((choice & 7) != 7 && tcb().timestamps) {
      uint32_t value = tcb().ts_recent + (choice & 3) - ((choice & 0x38) == 0x38 ? 100u : 0u);
      bytes = timestamps_option(value, host_stamp_ + (choice >> 6) - 1);
    }
    if ((choice & 0x30) == 0x30) {
      tcp::Sender& snd = tcb().snd;
      uint32_t flight = snd.snd_nxt - snd.snd_una;
      std::vector<std::pair<uint32_t, uint32_t>> blocks;
      for (uint8_t n = input_.u8() % 3 + 1; n > 0; --n) {
        uint32_t start = snd.snd_una.value() + (flight != 0 ? input_.u16() % flight : 0);
        blocks.emplace_back(start, start + input_.u16() % 3000);
      }
      bytes = bytes + sack_option(blocks);
    }
    return bytes;
  }

  void send(PeerSegment segment, uint8_t options_too = 1) {
    if (options_too != 0)
      segment.options = segment_options();
    else if (host_stamp_ != 0)
      segment.options = timestamps_option(1001, host_stamp_);
    peer_.send(segment);
  }

  void acknowledge() {
    if (!socket_) return;
    send({.seq = tcb().rcv.rcv_nxt.value(), .ack = acknowledgment(), .window = input_.u16()});
  }

  void segment() {
    if (!socket_) return;
    static constexpr std::string_view kFlags[] = {"A", "A",  "PA", "PA", "FA", "A",  "RA", "R",
                                                  "S", "SA", "",   "UA", "PA", "PA", "A",  "FPA"};
    uint8_t choice = input_.u8();
    uint32_t seq = sequence_number(), ack = acknowledgment();
    size_t length = input_.u8();
    if ((choice & 0x80) != 0) length *= 11;
    uint16_t window = (choice & 0x40) != 0 ? input_.u16() : 65535;
    send({.seq = seq,
          .ack = ack,
          .flags = kFlags[choice % 16],
          .payload = bytes_at(seq, std::min<size_t>(length, 1400)),
          .window = window,
          .urgent = static_cast<uint16_t>(choice % 16 == 11 ? input_.u8() : 0)});
  }

  void icmp() {
    if (!socket_) return;
    uint8_t type = input_.u8();
    peer_.send_icmp(type % 2 == 0 ? 3 : type % 16, input_.u8() % 16, input_.u16(), acknowledgment());
  }

  void read(size_t n) {
    if (!socket_) return;
    if (tcb().urgent.marked()) skipping_ = true;
    std::string got = socket_.receive(n);
    // An urgent byte is no part of the stream, and its place isn't told: then nothing can be said any more.
    if (!skipping_ && got != bytes_at(read_, got.size())) wrong("what was read is not what was sent");
    read_ += static_cast<uint32_t>(got.size());
    peer_.run();
  }

  void call() {
    if (!socket_) return;
    uint8_t what = input_.u8(), argument = input_.u8();
    static constexpr int kNames[] = {TCP_NODELAY,  TCP_CORK,    TCP_QUICKACK,     TCP_USER_TIMEOUT,
                                     TCP_KEEPIDLE, TCP_LINGER2, TCP_WINDOW_CLAMP, TCP_NOTSENT_LOWAT};
    switch (what % 4) {
      case 0:
        (void)socket_->shutdown(static_cast<ShutdownHow>(argument % 3));
        break;
      case 1:
        (void)socket_.set(IPPROTO_TCP, kNames[what / 4 % 8], argument * 8);
        break;
      case 2:
        (void)socket_.set(SOL_SOCKET, what / 4 % 2 != 0 ? SO_RCVBUF : SO_SNDBUF, argument * 256);
        break;
      case 3:
        (void)socket_.set(SOL_SOCKET, SO_KEEPALIVE, argument % 2);
        (void)socket_->readiness();
        break;
    }
    peer_.run();
  }

  void close() {
    if (!socket_ || input_.u8() % 8 != 0) return;
    socket_.close();
    peer_.run();
  }

  // --- what must hold ---

  void judge() {
    for (const CapturedFrame& frame : peer_.take()) judge_frame(frame);
    if (!socket_ || !tcp::is_synchronized(tcb().state)) return;
    const tcp::Sender& snd = tcb().snd;
    tcp::Receiver& rcv = tcb().rcv;
    if (snd.snd_nxt < snd.snd_una) wrong("SND.NXT < SND.UNA");
    if (rcv.rcv_adv < right_edge_) wrong("the window has shrunk");
    right_edge_ = rcv.rcv_adv;
    const tcp::Flight& flight = snd.flight();
    if (flight.outstanding() != snd.snd_nxt - snd.snd_una) wrong("the flight is not SND.NXT - SND.UNA");
    // What was sent again is in flight besides its original once that is found not to be lost (Eifel's undo).
    if (flight.sacked() + flight.lost() > flight.outstanding() ||
        flight.sacked() + flight.retransmitted() > flight.outstanding())
      wrong("the flight's sums");
    if (rcv.reassembly().range_count() > 1024) wrong("too many holes");
    if (snd.cwnd() == 0) wrong("cwnd 0");
    if (!flight.empty() && snd.rto_deadline == kNever) wrong("something in flight and no timer");
  }

  void judge_frame(const CapturedFrame& frame) {
    if (!frame.tcp) return;
    const CapturedTcp& tcp = *frame.tcp;
    if (!tcp.good_checksum || !tcp.good_options) wrong("a malformed segment");
    if (tcp.timestamps) host_stamp_ = tcp.timestamps->first;
    if ((tcp.flags & 4) != 0 || frame.payload.empty()) return;
    uint32_t position = tcp.seq - (peer_.iss + 1);
    if (frame.payload != bytes_at(position, frame.payload.size()))
      wrong("a segment with other bytes than written");
    if (position + frame.payload.size() > written_) wrong("a segment with bytes that were never written");
  }

  /// The program lets go, the peer is silent: nothing may be left in the end.
  void finish() {
    socket_.close();
    listener_.close();
    peer_.run();
    peer_.advance(2h);
    peer_.take();
    if (peer_.host().tcp().endpoint_count() != 0) wrong("an endpoint that doesn't end");
    if (peer_.host().tcp().time_wait_count() != 0) wrong("a TIME-WAIT that doesn't end");
  }

  Input input_;
  bool passive_ = false, syn_data_ = false;
  int offer_ = 0;
  TcpPeer peer_;
  TestSocket listener_, socket_;
  uint32_t peer_iss_ = 0, peer_next_ = 0, host_stamp_ = 0;
  /// What the program has written and read: positions in either stream.
  uint32_t written_ = 0, read_ = 0;
  bool skipping_ = false;
  SeqNum right_edge_;
};

}  // namespace
}  // namespace ustack::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ustack::test::Driver(data, size).run();
  return 0;
}
