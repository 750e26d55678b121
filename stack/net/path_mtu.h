// What path MTU discovery has learned (RFC 1191, 8201).
#pragma once

#include <cstdint>

#include "stack/net/address_table.h"
#include "stack/net/context.h"

namespace ustack {

/// Path MTUs by destination, for net.ipv4.route.mtu_expires seconds each. Lock: the host's.
class PathMtuCache {
 public:
  /// Destinations remembered; the least recently used is forgotten first.
  static constexpr uint32_t kMaxEntries = 1024;

  explicit PathMtuCache(const HostContext& context)
      : context_(context), table_(context.arena, context.random) {}
  PathMtuCache(const PathMtuCache&) = delete;
  PathMtuCache& operator=(const PathMtuCache&) = delete;

  /// The path MTU to `remote` in bytes: what was learned if that is less than the link's, else the link's.
  uint32_t find(const IpAddress& remote, uint32_t link_mtu) const {
    if (table_.size() == 0) [[likely]]
      return link_mtu;
    const Entry* entry = table_.find(remote);
    return entry == nullptr || entry->expires <= context_.now ? link_mtu : std::min(entry->mtu, link_mtu);
  }
  /// A router on the way to `remote` could not forward a packet since its next hop takes at most `reported`
  /// bytes (0: it didn't say; the next lower plateau is taken then, RFC 1191, section 7). Lowers the path
  /// MTU, never below net.ipv4.route.min_pmtu (IPv6: 1280 bytes, RFC 8201) or the link's MTU, whichever is
  /// less; never raises it. Returns the path MTU from now on.
  uint32_t update(const IpAddress& remote, uint32_t reported, uint32_t link_mtu);

  uint32_t size() const { return table_.size(); }
  /// After a process was killed while it changed the host.
  void mend() { table_.mend(); }

 private:
  struct Entry : AddressTableEntry {
    using AddressTableEntry::AddressTableEntry;
    uint32_t mtu = 0;
    Instant expires{};
  };
  HostContext context_;
  AddressTable<Entry> table_;
};

}  // namespace ustack
