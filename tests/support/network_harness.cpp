#include "tests/support/network_harness.h"

#include <algorithm>
#include <cstring>

namespace ustack::test {

namespace {

Slice slice_of(BlockPool& blocks, const std::byte* bytes, size_t n) {
  auto length = static_cast<uint32_t>(n);
  Slice slice{blocks.allocate(length), 0, length};
  if (n > 0) std::memcpy(slice.data(), bytes, n);
  return slice;
}

std::string text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

}  // namespace

void RecordingTransport::on_packet(Packet&& packet, Instant) {
  std::string data = text_of(packet.data.bytes());
  packets.push_back({std::move(packet), std::move(data)});
}

void RecordingTransport::on_icmp_error(const IcmpError& error, Instant) {
  errors.push_back({error, text_of(error.quoted)});
  errors.back().error.quoted = {};
}

NetworkHarness::NetworkHarness(const Options& options) : random(options.seed) {
  NetworkConfig config;
  config.link = options.link;
  for (const Prefix& prefix : options.addresses) config.addresses[config.address_count++] = prefix;
  for (const IpAddress& gateway : options.gateways) config.gateways[config.gateway_count++] = gateway;
  HostContext context{arena, blocks, frames, scheduler, timers, random, counters, settings, log, now, queue};
  network = std::make_unique<Network>(context, config, transmit);
  network->set_transport(6, &tcp);
  network->set_transport(17, &udp);
}

NetworkHarness::~NetworkHarness() {
  if (network) take();
  network.reset();
}

void NetworkHarness::receive(const ByteVector& bytes, const Offload& offload) {
  network->receive(RxFrame{slice_of(blocks, bytes.data(), bytes.size()), offload, now});
}

void NetworkHarness::receive_ip(const Ipv4Fields& fields, const ByteVector& payload, const Offload& offload) {
  ByteVector packet = ipv4_packet(fields, payload);
  if (network->link().kind == LinkInfo::Kind::ethernet)
    packet = ethernet_frame(network->link().mac, kPeerMac, 0x0800, packet);
  receive(packet, offload);
}

void NetworkHarness::receive_arp(uint16_t operation, const MacAddress& sender_mac, const IpAddress& sender,
                                 const IpAddress& target, const MacAddress& target_mac) {
  MacAddress destination = operation == 1 ? MacAddress::broadcast() : kOurMac;
  receive(ethernet_frame(destination, sender_mac, 0x0806,
                         arp_packet(operation, sender_mac, sender, target_mac, target)));
}

void NetworkHarness::learn(const IpAddress& address, const MacAddress& mac) {
  network->neighbours().learn(address, mac, NeighbourCache::Evidence::announce, true);
}

Status NetworkHarness::send(const IpAddress& remote, const ByteVector& payload, uint8_t protocol,
                            const IpOptionsOut& options) {
  Result<Route> route = network->find_route({}, remote);
  if (!route.ok()) return route.error();
  auto body = payload.begin() + static_cast<ptrdiff_t>(std::min<size_t>(payload.size(), 20));
  return route->send(frame({payload.begin(), body}, {body, payload.end()}), protocol, options);
}

TxFrame* NetworkHarness::frame(const ByteVector& header, const ByteVector& payload, size_t slice) {
  TxFrame* made = frames.allocate();
  if (made == nullptr) return nullptr;
  if (!header.empty())
    std::memcpy(made->prepend(static_cast<uint32_t>(header.size())), header.data(), header.size());
  for (size_t at = 0; at < payload.size(); at += slice)
    made->append(slice_of(blocks, payload.data() + at, std::min(slice, payload.size() - at)));
  return made;
}

void NetworkHarness::advance(Duration duration) {
  Instant end = now + duration;
  while (timers.next_deadline() <= end) {
    now = std::max(now, timers.next_deadline());
    timers.advance(now);
  }
  now = end;
  timers.advance(now);
}

std::vector<CapturedFrame> NetworkHarness::take() {
  return take_frames(transmit, frames, network->link().kind);
}

std::string NetworkHarness::take_counters(bool all) {
  static constexpr uint64_t Counters::*kOfEveryFrame[] = {
      &Counters::UstackRxFrames,  &Counters::UstackTxFrames, &Counters::IpInReceives,
      &Counters::IpOutRequests,   &Counters::IpExtInOctets,  &Counters::IpExtOutOctets,
      &Counters::IpExtInNoECTPkts};
  std::string text;
  for (const CounterDescription& row : kCounterTable) {
    uint64_t value = counters.*row.field;
    bool usual =
        std::find(std::begin(kOfEveryFrame), std::end(kOfEveryFrame), row.field) != std::end(kOfEveryFrame);
    if (value == 0 || (usual && !all)) continue;
    if (!text.empty()) text += ' ';
    text += std::string(std::string_view(row.group)) + '.' + std::string(std::string_view(row.name)) + '=' +
            std::to_string(value);
  }
  counters = {};
  return text;
}

}  // namespace ustack::test
