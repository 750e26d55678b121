#include "stack/net/reassembly.h"

#include <algorithm>
#include <cstring>

#include "stack/base/checksum.h"

namespace ustack {

Reassembler::Datagram::Datagram(Reassembler& reassembler, const Key& k)
    : owner(reassembler),
      key(k),
      timer(
          [](Timer&, void* datagram, Instant) {
            auto& self = *static_cast<Datagram*>(datagram);
            self.owner.expire(self);
          },
          this) {}

Reassembler::Reassembler(const HostContext& context, Expired expired, void* expired_context)
    : context_(context),
      expired_(expired),
      expired_context_(expired_context),
      key_(SipKey::random(context.random)) {}

Reassembler::~Reassembler() {
  while (Datagram* datagram = by_age_.front()) erase(*datagram);
}

IntrusiveList<Reassembler::Datagram>& Reassembler::bucket(const Key& key) {
  std::byte bytes[37];
  std::memcpy(bytes, key.source.data(), 16);
  std::memcpy(bytes + 16, key.destination.data(), 16);
  store_be32(bytes + 32, key.id);
  bytes[36] = std::byte{key.protocol};
  return buckets_[siphash(key_, Bytes(bytes)) % kBuckets];
}

Reassembler::Datagram* Reassembler::find_or_create(const Key& key) {
  IntrusiveList<Datagram>& list = bucket(key);
  for (Datagram& datagram : list)
    if (datagram.key == key) return &datagram;

  if (!make_room(sizeof(Datagram))) return nullptr;
  auto* datagram = context_.arena.create<Datagram>(*this, key);
  if (datagram == nullptr) return nullptr;
  datagram->memory = sizeof(Datagram);
  memory_ += datagram->memory;
  by_age_.push_back(*datagram);  // first: what is in that list is there (mend())
  list.push_back(*datagram);
  ++size_;
  // RFC 1122, 3.3.2 and RFC 8200, 4.5: the time runs from the first fragment to come, and others don't
  // prolong it.
  const int32_t seconds = key.source.is_v6() ? context_.settings.ip6frag_time : context_.settings.ipfrag_time;
  context_.timers.arm(datagram->timer, context_.now + std::chrono::seconds(seconds));
  return datagram;
}

void Reassembler::mend() {
  size_ = 0;
  memory_ = 0;
  for (Datagram& datagram : by_age_) {
    bucket(datagram.key).push_back(datagram);
    context_.timers.mend(datagram.timer);
    if (!datagram.timer.armed()) context_.timers.arm(datagram.timer, context_.now);
    ++size_;
    memory_ += datagram.memory;
  }
}

bool Reassembler::make_room(uint64_t bytes) {
  auto limit = static_cast<uint64_t>(context_.settings.ipfrag_high_thresh);
  while (memory_ + bytes > limit) {
    Datagram* oldest = by_age_.front();
    if (oldest == nullptr) return false;
    fail(*oldest);
  }
  return true;
}

/// Marks the units as covered unless some of them are already.
Reassembler::Coverage Reassembler::cover(Datagram& datagram, uint32_t first_unit, uint32_t end_unit) {
  auto for_words = [&](auto&& f) {
    for (uint32_t at = first_unit; at < end_unit;) {
      uint32_t bit = at % 64, count = std::min(64 - bit, end_unit - at);
      uint64_t mask = (count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << bit;
      f(datagram.covered[at / 64], mask);
      at += count;
    }
  };
  bool any = false, all = true;
  for_words([&](uint64_t word, uint64_t mask) {
    any |= (word & mask) != 0;
    all &= (word & mask) == mask;
  });
  if (any) return all ? Coverage::all : Coverage::some;
  for_words([](uint64_t& word, uint64_t mask) { word |= mask; });
  datagram.units_seen += end_unit - first_unit;
  return Coverage::none;
}

Slice Reassembler::add(const Ipv4Header& header, Slice packet) {
  ++context_.counters.IpReasmReqds;
  const Key key{header.source, header.destination, header.id, header.protocol};
  return add(key,
             {.headers = header.header_length,
              .offset = header.fragment_offset,
              .more = header.more_fragments,
              .ecn = static_cast<uint8_t>(header.tos & ecn::kMask)},
             std::move(packet));
}

Slice Reassembler::add(const Ipv6Header& header, const Ipv6Fragment& part, Slice packet) {
  ++context_.counters.Ip6ReasmReqds;
  // RFC 8200, 4.5: the protocol doesn't tell datagrams apart.
  const Key key{header.source, header.destination, part.id, 0};
  return add(key,
             {.headers = part.at + Ipv6Fragment::kLength,
              .offset = part.offset,
              .more = part.more,
              .ecn = static_cast<uint8_t>(header.traffic_class & ecn::kMask)},
             std::move(packet));
}

Slice Reassembler::add(const Key& key, const Place& place, Slice packet) {
  const bool v6 = key.source.is_v6();
  uint64_t& fails = v6 ? context_.counters.Ip6ReasmFails : context_.counters.IpReasmFails;
  const uint32_t offset = place.offset, length = packet.length - place.headers, end = offset + length;
  // What a packet's length field counts beside the fragments' payload.
  const uint32_t counted = v6 ? place.headers - Ipv6Header::kLength - Ipv6Fragment::kLength : place.headers;
  // All but the last carry whole units. Nothing may reach past what a length field can say ("ping of death"),
  // and an empty fragment has no place.
  if (length == 0 || (place.more && length % 8 != 0) || end + counted > Ipv4Header::kLargestPacket) {
    ++fails;
    return {};
  }

  Datagram* datagram = find_or_create(key);
  if (datagram == nullptr) {
    ++fails;
    return {};
  }

  // The end must be beyond all that came, and nothing may come beyond it.
  bool last = !place.more;
  if (datagram->end_known ? (end > datagram->end || (last && end != datagram->end))
                          : (last && end < datagram->end)) {
    fail(*datagram);
    return {};
  }
  switch (cover(*datagram, offset / 8, (end + 7) / 8)) {
    case Coverage::none:
      break;
    case Coverage::all:
      return {};  // a duplicate
    case Coverage::some:
      ++context_.counters.IpExtReasmOverlaps;
      fail(*datagram);
      return {};
  }

  auto* fragment = context_.arena.create<Fragment>();
  if (fragment == nullptr) {
    fail(*datagram);
    return {};
  }
  uint64_t charge = sizeof(Fragment) + packet.block->true_size();
  fragment->offset = offset;
  fragment->payload = packet.sub(place.headers, length);
  datagram->fragments.push_back(*fragment);
  datagram->memory += charge;
  memory_ += charge;
  datagram->end = std::max(datagram->end, end);
  datagram->end_known |= last;
  datagram->ecn_seen = static_cast<uint8_t>(datagram->ecn_seen | (1u << place.ecn));
  if (offset == 0) datagram->first = std::move(packet);

  if (datagram->end_known && datagram->units_seen == (datagram->end + 7) / 8) return assemble(*datagram);
  // The oldest datagram may be this one.
  make_room(0);
  return {};
}

Slice Reassembler::assemble(Datagram& datagram) {
  const bool v6 = datagram.key.source.is_v6();
  Bytes first = datagram.first.bytes();
  const Ipv6Fragment part = v6 ? Ipv6Chain::walk(first, false).part : Ipv6Fragment();
  const uint32_t header_length = v6 ? part.at : Ipv4View(first.data()).header_length();
  uint32_t total = header_length + datagram.end;
  // RFC 3168, 5.3: congestion that any fragment met is the packet's; fragments that disagree on being
  // ECN-capable make no packet (Linux's ip_frag_ecn_table).
  bool mixed = (datagram.ecn_seen & (1u << ecn::kNotEct)) != 0 && datagram.ecn_seen != (1u << ecn::kNotEct);
  BlockRef block;
  const uint32_t largest =
      v6 ? Ipv6Header::kLength + Ipv6Header::kLargestPayload : Ipv4Header::kLargestPacket;
  if (total <= largest && !mixed) block = context_.blocks.allocate(total);
  if (!block) {
    fail(datagram);
    return {};
  }
  Slice whole{std::move(block), 0, total};
  std::byte* out = whole.data();
  std::memcpy(out, first.data(), header_length);
  for (Fragment& fragment : datagram.fragments)
    std::memcpy(out + header_length + fragment.offset, fragment.payload.data(), fragment.payload.length);

  const bool congested = (datagram.ecn_seen & (1u << ecn::kCe)) != 0;
  if (v6) {
    store_be16(out + Ipv6Header::kPayloadLengthAt, static_cast<uint16_t>(total - Ipv6Header::kLength));
    out[part.named_at] = std::byte{part.next_header};
    // The traffic class lies across two bytes.
    if (congested) out[1] |= std::byte{ecn::kCe << 4};
  } else {
    store_be16(out + 2, static_cast<uint16_t>(total));
    store_be16(out + 6, 0);
    if (congested) out[1] |= std::byte{ecn::kCe};
    store_be16(out + 10, 0);
    store_be16(out + 10, checksum_of(Bytes(out, header_length)));
  }
  ++count(datagram, &Counters::IpReasmOKs, &Counters::Ip6ReasmOKs);
  erase(datagram);
  return whole;
}

void Reassembler::fail(Datagram& datagram) {
  ++count(datagram, &Counters::IpReasmFails, &Counters::Ip6ReasmFails);
  erase(datagram);
}

void Reassembler::erase(Datagram& datagram) {
  while (Fragment* fragment = datagram.fragments.pop_front()) context_.arena.destroy(fragment);
  memory_ -= datagram.memory;
  --size_;
  context_.arena.destroy(&datagram);
}

void Reassembler::expire(Datagram& datagram) {
  ++count(datagram, &Counters::IpReasmTimeout, &Counters::Ip6ReasmTimeout);
  Slice first = std::move(datagram.first);
  fail(datagram);
  if (first.block) expired_(expired_context_, first);
}

}  // namespace ustack
