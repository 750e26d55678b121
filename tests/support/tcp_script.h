// A scripted exchange in the manner of packetdrill: the host sends, a raw peer answers, in virtual time. The
// connection is open when the script begins, with an MSS of 1000; segments are numbered from 0, so that
// segment 3 is bytes 3000 to 3999. A line is an event, after as many milliseconds as it says:
//
//   +0     write 10             the program writes ten segments (write 500b: bytes)
//   +0     > 0-9                what was sent since the last such line, in order; nothing else was
//   +10    < 1 sack 3-5 8       the peer acknowledges segment 0, and has 3, 4, 5 and 8
//   +0     ? state recovery     cwnd, ssthresh, in_flight (segments); state, reordering; any TcpExt counter
//   +0     close                the program sends no more
//   +0.5   > 3 4+500F           a lone 500 bytes of segment 4, and a FIN
//   +0     > 5W 6-8             the first of them has CWR
//
// `<` takes further: `win N` (segments), `ecr T` (echoes the timestamp of the script's millisecond T; else
// that of the last segment sent), `dsack A-B` (before the other blocks), `ece`, `data N` (bytes of the
// peer's).
// `#` begins a comment.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/tcp_peer.h"

namespace ustack::test {

struct ScriptOptions {
  bool sack = true;
  bool timestamps = false;
  /// Of the handshake.
  Duration rtt = 10ms;
  /// In segments.
  uint32_t window = 65;
  Settings settings{};
  /// The link cuts superframes.
  bool superframes = false;
  /// RFC 3168 was negotiated.
  bool ecn = false;
  std::string_view congestion = "reno";
};

/// One connection under a script. Failures are gtest's, with the line.
class TcpScript {
 public:
  static constexpr uint32_t kMss = 1000;
  TcpScript() : TcpScript(ScriptOptions()) {}
  explicit TcpScript(const ScriptOptions& options);
  ~TcpScript();

  /// Runs it; may be called again to go on.
  void run(std::string_view script);
  TcpPeer& peer() { return *peer_; }
  TestSocket& socket() { return socket_; }

 private:
  struct Words;
  void execute(std::string_view line);
  void write(Words& words);
  void expect_sent(Words& words);
  void acknowledge(Words& words);
  void expect(Words& words);
  std::string sent();
  std::string segments(uint32_t bytes) const;
  void fail(const std::string& what);

  ScriptOptions options_;
  std::unique_ptr<TcpPeer> peer_;
  TestSocket socket_;
  uint32_t start_ = 0;
  uint32_t peer_next_ = 0;
  uint32_t timestamp_at_start_ = 0, last_timestamp_ = 0;
  Instant begin_{};
  int line_number_ = 0;
  std::string_view line_;
};

}  // namespace ustack::test
