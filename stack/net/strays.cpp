// What comes to one shard of a host and is another's (stack/shards.h).
#include <cstring>
#include <memory>

#include "stack/net/network.h"

namespace ustack {

/// Of one of several shards. True: it is another one's, who will have it.
bool Network::hand_over(Arrival& arrival) {
  if (arrival.handed_over) return false;
  const uint8_t shard = context_.shards->steering.shard_of_packet(arrival.packet.bytes());
  if (shard == context_.shard || shard == Steering::kAnyShard) return false;
  ++context_.counters.UstackShardStrays;
  add_stray({shard, Stray::Kind::packet, std::move(arrival)});
  return true;
}

/// The others learn from it as well who has which link address.
void Network::hand_to_all(Stray::Kind kind, const Arrival& arrival) {
  if (context_.shards != nullptr) add_stray({Steering::kAnyShard, kind, arrival});
}

void Network::add_stray(Stray&& stray) {
  if (stray_count_ == kMostStrays) {
    ++context_.counters.UstackShardStraysDropped;
    return;
  }
  // What is free may be what a killed process has left half filled, which isn't its block's any more.
  std::construct_at(&stray_at(stray_count_), std::move(stray));
  ++stray_count_;
}

std::optional<Stray> Network::take_stray() {
  if (stray_count_ == 0) return std::nullopt;
  Stray stray = std::move(stray_at(0));
  first_stray_ = (first_stray_ + 1) % kMostStrays;
  --stray_count_;
  return stray;
}

void Network::mend_strays() {
  for (uint32_t i = stray_count_; i < kMostStrays; ++i) std::construct_at(&stray_at(i));
}

void Network::receive_stray(const Stray& stray) {
  const Slice& theirs = stray.arrival.packet;
  if (!theirs.block) return;  // a process was killed while it took one
  Arrival arrival = stray.arrival;
  arrival.handed_over = true;
  arrival.packet = Slice{context_.blocks.allocate(theirs.length), 0, theirs.length};
  if (!arrival.packet.block) {
    ++context_.counters.UstackRxNoMemory;
    return;
  }
  std::memcpy(arrival.packet.data(), theirs.data(), theirs.length);
  switch (stray.kind) {
    case Stray::Kind::packet:
      if (Ipv4View(arrival.packet.data()).version() == 6)
        receive_ipv6({std::move(arrival), {}, {}});
      else
        receive_ipv4({std::move(arrival), {}});
      return;
    case Stray::Kind::arp:
      learn_from_arp(arrival.packet.bytes());
      return;
    case Stray::Kind::discovery:
      learn_by_discovery({std::move(arrival), {}, {}});
      return;
  }
}

}  // namespace ustack
