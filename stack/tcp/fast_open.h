// TCP Fast Open (RFC 7413): what a server proves its peers by, and what a client remembers of servers.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "stack/base/siphash.h"
#include "stack/base/time.h"
#include "stack/net/address_table.h"
#include "stack/net/context.h"
#include "stack/tcp/options.h"

namespace ustack::tcp {

/// Bits of net.ipv4.tcp_fastopen (ip-sysctl).
namespace fast_open {
inline constexpr int32_t kClient = 1;                 ///< active opens may send data in the SYN
inline constexpr int32_t kServer = 2;                 ///< passive opens may take it
inline constexpr int32_t kClientWithoutCookie = 4;    ///< data in every SYN, cookie or not
inline constexpr int32_t kServerWithoutCookie = 512;  ///< taken without a cookie
inline constexpr int32_t kEveryListener = 1024;       ///< TCP_FASTOPEN isn't needed
}  // namespace fast_open

/// Why data in a SYN did not save the round trip (tcpi_fastopen_client_fail).
enum class FastOpenFailure : uint8_t { none, cookie_unavailable, data_not_acknowledged, syn_retransmitted };

/// One or two secrets of 16 bytes, the second still accepted while keys are changed (TCP_FASTOPEN_KEY).
struct FastOpenKeys {
  static constexpr uint32_t kKeyBytes = 16;
  std::array<std::byte, 2 * kKeyBytes> bytes{};
  /// 0: none is set.
  uint8_t count = 0;

  /// A key from 16 or 32 bytes. False: another length.
  bool set(Bytes keys);
  Bytes view() const { return Bytes(bytes).first(count * kKeyBytes); }
  /// The cookie for a client: SipHash of both addresses, as Linux computes it, so that servers which share a
  /// key and an address know each other's cookies.
  FastOpenCookie make(const IpAddress& client, const IpAddress& server, uint32_t key = 0) const;
  enum class Match : uint8_t { none, primary, backup };
  Match check(const FastOpenCookie& cookie, const IpAddress& client, const IpAddress& server) const;
};

/// A client's cookies by server address, and whether the net lets Fast Open through at all. Lock: the host's.
class FastOpenCache {
 public:
  /// Servers remembered; the least recently used is forgotten first.
  static constexpr uint32_t kMaxEntries = 1024;
  struct Entry : AddressTableEntry {
    using AddressTableEntry::AddressTableEntry;
    FastOpenCookie cookie;
    /// Of the server's last SYN-ACK; 0: not known.
    uint16_t mss = 0;
    /// SYNs with data that seem to have been dropped for it, in a row.
    uint32_t syn_losses = 0;
    Instant last_loss{};
  };

  explicit FastOpenCache(const HostContext& context)
      : context_(context), table_(context.arena, context.random) {}
  FastOpenCache(const FastOpenCache&) = delete;
  FastOpenCache& operator=(const FastOpenCache&) = delete;
  ~FastOpenCache() = default;

  /// What is known of `server`, nullptr if nothing.
  const Entry* find(const IpAddress& server) const { return table_.find(server); }
  /// Fast Open may be tried: no black hole was met lately, nor have SYNs with data got lost on the way to
  /// `server` (RFC 7413, 4.1.3.1).
  bool usable(const IpAddress& server) const;
  /// The answer to a Fast Open SYN: a cookie if there was one, the server's MSS, and whether the SYN with its
  /// data had to be sent again without them.
  void learn(const IpAddress& server, const std::optional<FastOpenCookie>& cookie, uint16_t mss,
             bool syn_lost);
  /// Repeated time-outs of a connection that used it: nobody tries for
  /// net.ipv4.tcp_fastopen_blackhole_timeout_sec, twice as long each time.
  void note_black_hole();
  /// It worked: the next black hole begins with the first time again.
  void note_success() { black_holes_ = 0; }

  /// After a process was killed while it changed the host.
  void mend() { table_.mend(); }

 private:
  HostContext context_;
  AddressTable<Entry> table_;
  uint32_t black_holes_ = 0;
  Instant disabled_until_{};
};

}  // namespace ustack::tcp
