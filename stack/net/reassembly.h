// Fragments back into packets (RFC 791, section 3.2; RFC 815; RFC 8200, section 4.5), within limits.
//
// A datagram in the making is a list of the fragments that came, in any order, and a bitmap of the 8-byte
// units that they cover. So each fragment costs the same however many came before, overlaps show at once, and
// memory is charged for what really came, not for what a header promises.
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/base/siphash.h"
#include "stack/census.h"
#include "stack/net/context.h"
#include "stack/net/ipv4.h"
#include "stack/net/ipv6.h"
#include "stack/time/timer.h"

namespace ustack {

/// Lock: the host's.
class Reassembler {
 public:
  /// Called when a datagram's time is up and its first fragment is there (the whole fragment, from its IP
  /// header): RFC 1122, 3.3.2 wants an ICMP time exceeded for it.
  using Expired = void (*)(void* context, const Slice& first_fragment);

  Reassembler(const HostContext& context, Expired expired, void* expired_context);
  Reassembler(const Reassembler&) = delete;
  Reassembler& operator=(const Reassembler&) = delete;
  ~Reassembler();

  /// A fragment: its parsed header, and the whole packet from its IP header on, without padding. Returns the
  /// whole packet in one piece, with the first fragment's header made right for it, when this fragment
  /// completes it; else an empty slice. Counts Ip Reasm*.
  ///
  /// A fragment that is wrong in itself is dropped. One that doesn't go with the others of its datagram
  /// (overlap, other end) takes them with it, as RFC 5722 demands for IPv6 and Linux does for both; one that
  /// repeats what is there is ignored. Memory beyond net.ipv4.ipfrag_high_thresh costs the oldest datagrams.
  Slice add(const Ipv4Header& header, Slice packet);
  /// The same of IPv6, by the fragment header that `packet` has; the whole packet has none.
  Slice add(const Ipv6Header& header, const Ipv6Fragment& part, Slice packet);

  /// Datagrams in the making, and what they are charged for, in bytes.
  uint32_t size() const { return size_; }
  uint64_t memory() const { return memory_; }
  /// After a process was killed while it changed the host: datagrams are where they belong, and what they are
  /// charged for is counted.
  void mend();
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    by_age_.for_each([&](Datagram& datagram) {
      census.see(datagram.first);
      datagram.fragments.for_each([&](Fragment& fragment) { census.see(fragment.payload); });
    });
  }

 private:
  struct Fragment : ListHook<> {
    Slice payload;
    uint32_t offset = 0;
  };
  struct Key {
    IpAddress source, destination;
    uint32_t id = 0;
    uint8_t protocol = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct ByAge;
  struct Datagram : ListHook<>, ListHook<ByAge> {
    Datagram(Reassembler& owner, const Key& key);
    Reassembler& owner;
    Key key;
    Timer timer;
    IntrusiveList<Fragment> fragments;
    Slice first;  // the first fragment from its IP header, empty until it is there
    uint32_t end =
        0;  // payload length, known when the last fragment is there; until then the largest end seen
    uint32_t units_seen = 0;  // of 8 bytes
    bool end_known = false;
    uint8_t ecn_seen = 0;  // a bit for each ECN codepoint
    uint64_t memory = 0;
    std::array<uint64_t, 128> covered{};  // a bit for each 8-byte unit
  };
  enum class Coverage : uint8_t { none, some, all };
  static constexpr uint32_t kBuckets = 64;

  /// What a fragment says of itself.
  struct Place {
    uint32_t headers;  // bytes of the packet before the payload
    uint32_t offset;
    bool more;
    uint8_t ecn;
  };
  Slice add(const Key& key, const Place& place, Slice packet);
  Slice assemble(Datagram& datagram);
  uint64_t& count(const Datagram& datagram, uint64_t Counters::*v4, uint64_t Counters::*v6) {
    return context_.counters.*(datagram.key.source.is_v6() ? v6 : v4);
  }
  IntrusiveList<Datagram>& bucket(const Key& key);
  Datagram* find_or_create(const Key& key);
  bool make_room(uint64_t bytes);
  static Coverage cover(Datagram& datagram, uint32_t first_unit, uint32_t end_unit);
  void fail(Datagram& datagram);
  void erase(Datagram& datagram);
  void expire(Datagram& datagram);

  HostContext context_;
  Expired expired_;
  void* expired_context_;
  SipKey key_;
  std::array<IntrusiveList<Datagram>, kBuckets> buckets_;
  IntrusiveList<Datagram, ByAge> by_age_;
  uint32_t size_ = 0;
  uint64_t memory_ = 0;
};

}  // namespace ustack
