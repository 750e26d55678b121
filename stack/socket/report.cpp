#include "stack/socket/report.h"

#include <algorithm>
#include <cstring>

#include "stack/net/route.h"

namespace ustack {

Report icmp_report(BlockPool& blocks, int error, const IcmpError& icmp, uint16_t port, Bytes payload) {
  Report told;
  told.what = {.ee_errno = static_cast<uint32_t>(error),
               .ee_origin = static_cast<uint8_t>(icmp.local.is_v6() ? SO_EE_ORIGIN_ICMP6 : SO_EE_ORIGIN_ICMP),
               .ee_type = icmp.type,
               .ee_code = icmp.code,
               .ee_pad = 0,
               .ee_info = icmp.mtu,
               .ee_data = 0};
  told.offender = icmp.reporter;
  told.about = {icmp.remote, port};
  const auto bytes = static_cast<uint32_t>(std::min<size_t>(payload.size(), BlockPool::kLargest));
  told.payload = {blocks.allocate(std::max(bytes, 1u)), 0, bytes};
  if (told.payload.block) std::memcpy(told.payload.data(), payload.data(), bytes);
  return told;
}

}  // namespace ustack
