// Who gets a segment: connections by their four-tuple, listeners by local address and port; and who may bind
// what.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/base/random.h"
#include "stack/base/result.h"
#include "stack/base/siphash.h"
#include "stack/mem/arena.h"
#include "stack/mem/slab.h"
#include "stack/net/address.h"

namespace ustack::tcp {

/// What owns a four-tuple: an Endpoint, or the TimeWait that came after it.
class Connection {
 public:
  enum class Kind : uint8_t { endpoint, time_wait };
  explicit Connection(Kind kind) : kind_(kind) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Kind kind() const { return kind_; }
  const ConnectionId& id() const { return id_; }
  /// It is in a ConnectionTable.
  bool connected() const { return in_table_; }
  /// The four-tuple's, in this host only.
  uint32_t tuple_hash() const { return hash_; }

 protected:
  ~Connection() = default;
  ConnectionId id_;

 private:
  friend class ConnectionTable;
  Connection* next_ = nullptr;
  uint32_t hash_ = 0;
  Kind kind_;
  bool in_table_ = false;
};

/// Connections by four-tuple; a keyed hash, so that peers can't aim at one bucket. Grows by doubling. Lock:
/// the host's.
class ConnectionTable {
 public:
  ConnectionTable(Arena& arena, RandomSource& random) : arena_(arena), key_(SipKey::random(random)) {}
  ConnectionTable(const ConnectionTable&) = delete;
  ConnectionTable& operator=(const ConnectionTable&) = delete;
  ~ConnectionTable();

  Connection* find(const ConnectionId& id) const;
  /// Puts `connection` in as `id`. EADDRNOTAVAIL: the four-tuple is taken; ENOBUFS: no memory for the first
  /// table.
  Status insert(Connection& connection, const ConnectionId& id);
  /// Takes it out, if it is in.
  void remove(Connection& connection);
  uint32_t size() const { return size_; }
  /// After a process was killed while it changed the host: empties the table; then mend(connection) for each
  /// that there is puts it back, if it was in.
  void mend();
  void mend(Connection& connection);
  uint32_t hash(const ConnectionId& id) const;

 private:
  static constexpr uint32_t kFirstBuckets = 256;
  bool grow();

  Arena& arena_;
  SipKey key_;
  Connection** buckets_ = nullptr;
  uint32_t bucket_count_ = 0;
  uint32_t size_ = 0;
};

struct PortBucket;

/// A claim on a local port: of a bound or listening socket, a connection, or a TIME-WAIT. Its owner releases
/// it before it is destroyed.
class PortHolder : public ListHook<PortHolder> {
 public:
  PortHolder() = default;
  PortHolder(const PortHolder&) = delete;
  PortHolder& operator=(const PortHolder&) = delete;

  bool bound() const { return bucket_ != nullptr; }
  const IpAddress& bound_address() const { return address_; }

  /// SO_REUSEADDR and SO_REUSEPORT at the time of the check.
  bool reuse_address = false;
  bool reuse_port = false;
  /// IPV6_V6ONLY: :: doesn't take in IPv4's addresses.
  bool v6_only = false;
  /// It listens.
  bool listening = false;
  /// The port was chosen by connect(2): other connections may share it as long as the four-tuples differ.
  bool by_connect = false;

 private:
  friend class PortTable;
  IpAddress address_;
  PortBucket* bucket_ = nullptr;
};

/// All claims on one port.
struct PortBucket {
  uint16_t port = 0;
  /// Holders that are not by_connect.
  uint32_t exclusive = 0;
  IntrusiveList<PortHolder, PortHolder> holders;
};

/// Local ports in use, each at its place, so that all of them in use cost no more than one. Lock: the host's.
class PortTable {
 public:
  explicit PortTable(Arena& arena) : arena_(arena), buckets_(arena) {}
  PortTable(const PortTable&) = delete;
  PortTable& operator=(const PortTable&) = delete;
  ~PortTable();

  /// Whether bind(2) of `holder` to (address, port) is possible, as Linux decides: two sockets may share a
  /// port if their addresses differ and neither is the wildcard, if both have SO_REUSEADDR and the other
  /// one doesn't listen, or if both have SO_REUSEPORT. An unspecified address is the wildcard; IPv6's is
  /// IPv4's too, unless it is v6_only.
  bool conflicts(const PortHolder& holder, const IpAddress& address, uint16_t port) const;
  /// Nobody holds the port at all, or only what connect(2) has put there.
  bool free_for_bind(uint16_t port) const { return find(port) == nullptr; }
  bool free_for_connect(uint16_t port) const;
  /// Takes the port without further checks. ENOBUFS: no memory.
  Status claim(PortHolder& holder, const IpAddress& address, uint16_t port);
  /// Gives it up, if it was held.
  void release(PortHolder& holder);
  /// After a process was killed while it changed the host: counts anew who holds what. Holders that had not
  /// got into a bucket's list hold nothing: mend(holder) for each.
  void mend();
  static void mend(PortHolder& holder) {
    if (!holder.linked()) holder.bucket_ = nullptr;
  }

 private:
  /// Ports side by side; made when the first of them is used.
  static constexpr size_t kOfPage = 64;
  using Page = std::array<PortBucket*, kOfPage>;

  PortBucket* find(uint16_t port) const {
    const Page* page = pages_[port / kOfPage];
    return page == nullptr ? nullptr : (*page)[port % kOfPage];
  }
  /// A new bucket, in its place. nullptr: no memory.
  PortBucket* make(uint16_t port);
  void end(PortBucket& bucket);

  Arena& arena_;
  Slab<PortBucket> buckets_;
  std::array<Page*, 65536 / kOfPage> pages_{};
};

}  // namespace ustack::tcp
