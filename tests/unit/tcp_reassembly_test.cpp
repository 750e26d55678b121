#include "stack/tcp/reassembly.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/heap_arena.h"
#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

class TcpReassembly : public ::testing::Test {
 protected:
  Slice slice(std::string_view text) {
    uint32_t size = random_.chance(0.3) ? BlockPool::kLargest : static_cast<uint32_t>(text.size());
    BlockRef block = blocks_.allocate(std::max<uint32_t>(size, 1));
    std::memcpy(block->data(), text.data(), text.size());
    return Slice{std::move(block), 0, static_cast<uint32_t>(text.size())};
  }
  /// In the smallest block that holds it, so that it is kept as it is.
  Slice full_slice(uint32_t length, char c) {
    BlockRef block = blocks_.allocate(length);
    std::memset(block->data(), c, length);
    return Slice{std::move(block), 0, length};
  }
  Reassembly::Inserted insert(uint32_t seq, std::string_view text, bool fin = false) {
    return queue_.insert(SeqNum(seq), slice(text), fin, limits_);
  }
  std::string read_all() {
    std::string out;
    for (;;) {
      Extents view = buffer_.view(1 << 30, 0);
      if (view.bytes == 0) return out;
      for (uint32_t i = 0; i < view.count; ++i)
        out.append(reinterpret_cast<const char*>(view.runs[i].data()), view.runs[i].size());
      buffer_.consume(view.bytes);
    }
  }
  std::string extract(uint32_t rcv_nxt, bool fin = false) {
    Reassembly::Extracted extracted = queue_.extract(SeqNum(rcv_nxt), buffer_);
    EXPECT_EQ(extracted.fin, fin);
    std::string out = read_all();
    EXPECT_EQ(out.size(), extracted.bytes);
    return out;
  }
  using Blocks = std::vector<std::pair<uint32_t, uint32_t>>;
  Blocks sacks(size_t most = 4) {
    std::vector<SackBlock> out(most);
    out.resize(queue_.sack_blocks(out));
    Blocks blocks;
    for (const SackBlock& block : out) blocks.emplace_back(block.start.value(), block.end.value());
    return blocks;
  }

  test::SeededRandom random_{6};
  test::HeapArena arena_;
  BlockPool blocks_{arena_};
  PiecePool pieces_{arena_, blocks_};
  Reassembly queue_{pieces_};
  ReceiveBuffer buffer_{pieces_};
  Reassembly::Limits limits_{.true_size = 1 << 30};
};

TEST_F(TcpReassembly, WaitsForTheHoleToBeFilled) {
  EXPECT_EQ(insert(105, "fghij").added, 5u);
  EXPECT_EQ(extract(100), "");
  EXPECT_EQ(extract(104), "");
  EXPECT_EQ(queue_.size(), 5u);
  EXPECT_EQ(extract(105), "fghij");
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.true_size(), 0u);
}

TEST_F(TcpReassembly, ExtractsUpToTheNextHole) {
  insert(105, "f");
  insert(106, "g");
  insert(108, "i");
  EXPECT_EQ(extract(105), "fg");
  EXPECT_EQ(sacks(), (Blocks{{108, 109}}));
  EXPECT_EQ(extract(108), "i");
}

TEST_F(TcpReassembly, TheFirstToArriveCounts) {
  struct Row {
    const char* what;
    std::vector<std::pair<uint32_t, const char*>> segments;
    const char* expected;                // from 10 on
    std::optional<SackBlock> duplicate;  // of the last segment
  };
  auto block = [](uint32_t a, uint32_t b) { return SackBlock{SeqNum(a), SeqNum(b)}; };
  const Row rows[] = {
      {"the same again", {{10, "aaa"}, {10, "bbb"}}, "aaa", block(10, 13)},
      {"inside", {{10, "aaaa"}, {11, "bb"}}, "aaaa", block(11, 13)},
      {"around", {{11, "aa"}, {10, "bbbb"}}, "baab", block(11, 13)},
      {"overlaps the end", {{10, "aaa"}, {12, "bbb"}}, "aaabb", block(12, 13)},
      {"overlaps the start", {{12, "aaa"}, {10, "bbb"}}, "bbaaa", block(12, 13)},
      {"touches the end", {{10, "aaa"}, {13, "bbb"}}, "aaabbb", std::nullopt},
      {"touches the start", {{13, "aaa"}, {10, "bbb"}}, "bbbaaa", std::nullopt},
      {"fills the hole exactly", {{10, "aa"}, {14, "aa"}, {12, "bb"}}, "aabbaa", std::nullopt},
      {"over two and the hole", {{10, "aa"}, {14, "aa"}, {10, "bbbbbb"}}, "aabbaa", block(10, 12)},
      {"over three", {{11, "a"}, {13, "a"}, {15, "a"}, {10, "bbbbbbb"}}, "bababab", block(11, 12)},
  };
  for (const Row& row : rows) {
    Reassembly::Inserted inserted;
    uint32_t total = 0;
    for (auto [seq, text] : row.segments) total += (inserted = insert(seq, text)).added;
    EXPECT_EQ(inserted.duplicate, row.duplicate) << row.what;
    EXPECT_EQ(total, std::string_view(row.expected).size()) << row.what;
    EXPECT_EQ(queue_.range_count(), 1u) << row.what;
    EXPECT_EQ(extract(10), row.expected) << row.what;
  }
}

TEST_F(TcpReassembly, DropsWhatWasPassed) {
  insert(105, "fghij");
  insert(112, "m");
  insert(120, "z");
  // An in-order segment reached into the first range and over the second.
  EXPECT_EQ(extract(108), "ij");
  EXPECT_EQ(extract(115), "");
  EXPECT_EQ(sacks(), (Blocks{{120, 121}}));
  EXPECT_EQ(queue_.size(), 1u);
}

TEST_F(TcpReassembly, TheLatestRangeIsReportedFirst) {
  // RFC 2018, section 4.
  insert(200, "..........");
  EXPECT_EQ(sacks(), (Blocks{{200, 210}}));
  insert(300, "..........");
  EXPECT_EQ(sacks(), (Blocks{{300, 310}, {200, 210}}));
  insert(400, "..........");
  insert(210, "..........");  // the first range grows
  EXPECT_EQ(sacks(), (Blocks{{200, 220}, {400, 410}, {300, 310}}));
  insert(500, ".");
  insert(600, ".");
  EXPECT_EQ(sacks(), (Blocks{{600, 601}, {500, 501}, {200, 220}, {400, 410}}));
  EXPECT_EQ(sacks(3), (Blocks{{600, 601}, {500, 501}, {200, 220}}));
  EXPECT_EQ(sacks(9).size(), 5u);
  insert(300, "..........");  // a duplicate triggers an ACK too
  EXPECT_EQ(sacks(1), (Blocks{{300, 310}}));
  insert(310, std::string(90, '.'));  // joins two
  EXPECT_EQ(sacks(2), (Blocks{{300, 410}, {600, 601}}));
}

TEST_F(TcpReassembly, AFinHasItsPlaceInTheOrder) {
  // Behind its data.
  insert(12, "cd", true);
  EXPECT_EQ(queue_.fin_seq(), SeqNum(14));
  EXPECT_EQ(sacks(), (Blocks{{12, 15}}));
  insert(10, "ab");
  EXPECT_EQ(extract(10, true), "abcd");
  EXPECT_TRUE(queue_.empty());
  EXPECT_FALSE(queue_.fin_seq().has_value());

  // Alone, before its data.
  EXPECT_EQ(insert(12, "", true).added, 1u);
  EXPECT_EQ(insert(12, "", true).added, 0u);
  EXPECT_EQ(extract(10), "");
  EXPECT_EQ(extract(12, true), "");

  // Data up to it comes later, in a segment that has the FIN again.
  insert(14, "", true);
  insert(10, "ab");
  Reassembly::Inserted again = insert(11, "bcd", true);
  EXPECT_EQ(again.added, 2u);
  EXPECT_EQ(extract(10, true), "abcd");
}

TEST_F(TcpReassembly, NothingFollowsAFin) {
  insert(20, "later");
  insert(12, "cd", true);
  EXPECT_EQ(sacks(), (Blocks{{12, 15}})) << "what was beyond is dropped";
  EXPECT_EQ(insert(15, "more").added, 0u);
  EXPECT_EQ(insert(12, "cdXYZ", true).added, 0u);
  EXPECT_EQ(insert(10, "abcdXYZ", true).added, 2u);
  EXPECT_EQ(extract(10, true), "abcd");
  EXPECT_TRUE(queue_.empty());
}

TEST_F(TcpReassembly, AFinWhereDataIsDoesNotCount) {
  insert(10, "abcd");
  EXPECT_EQ(insert(10, "ab", true).added, 0u);
  EXPECT_FALSE(queue_.fin_seq().has_value());
  EXPECT_EQ(extract(10), "abcd");
}

TEST_F(TcpReassembly, SequenceNumbersWrap) {
  insert(3, "hi");
  insert(0xfffffffe, "cdefg");
  insert(0xfffffffb, "XYZ");
  EXPECT_EQ(extract(0xfffffffb), "XYZcdefghi");
}

TEST_F(TcpReassembly, TheNumberOfRangesIsBounded) {
  limits_.ranges = 4;
  for (uint32_t i = 0; i < 4; ++i) insert(100 + 10 * i, "x");
  Reassembly::Inserted refused = insert(200, "x");
  EXPECT_TRUE(refused.dropped);
  EXPECT_EQ(refused.added, 0u);
  EXPECT_EQ(queue_.range_count(), 4u);
  // What comes earlier in the stream takes the place of the last.
  Reassembly::Inserted earlier = insert(95, "x");
  EXPECT_EQ(earlier.added, 1u);
  EXPECT_TRUE(earlier.pruned);
  EXPECT_EQ(queue_.range_count(), 4u);
  Blocks blocks = sacks();
  EXPECT_EQ(std::count(blocks.begin(), blocks.end(), std::pair(130u, 131u)), 0);
  // Growing a range needs no new one.
  EXPECT_EQ(insert(101, "y").added, 1u);
}

TEST_F(TcpReassembly, ItsMemoryIsBounded) {
  limits_.true_size = 20000;
  std::string kilobyte(1000, 'x');
  uint32_t added = 0;
  for (uint32_t i = 0; i < 40; ++i) added += insert(1000 + 2000 * i, kilobyte).added;
  EXPECT_EQ(queue_.size(), added);
  EXPECT_LE(queue_.true_size(), 20000u + 2048);
  EXPECT_GE(added, 7000u);
  EXPECT_TRUE(insert(90000, kilobyte).dropped);
  // The hole's segment is worth more than what is behind it.
  Reassembly::Inserted first = insert(0, kilobyte);
  EXPECT_EQ(first.added, 1000u);
  EXPECT_TRUE(first.pruned);
  EXPECT_EQ(extract(0), std::string(2000, 'x'));
}

TEST_F(TcpReassembly, PruningTakesAFinToo) {
  limits_.true_size = 5000;
  insert(100, std::string(900, 'x'));
  insert(3000, std::string(900, 'x'), true);
  while (queue_.fin_seq())
    ASSERT_GT(insert(random_.below(2) == 0 ? 50 : 1000, std::string(1500, 'y')).added, 0u);
  EXPECT_FALSE(queue_.fin_seq().has_value());
  // It comes again, after all.
  limits_.true_size = 1 << 30;
  insert(0, std::string(3000, 'z'));
  insert(3000, std::string(900, 'x'), true);
  EXPECT_EQ(extract(0, true).size(), 3900u);
}

TEST_F(TcpReassembly, PruningTakesOnlyWhatItMust) {
  // One range of two pieces that ends in a FIN.
  queue_.insert(SeqNum(3000), full_slice(1500, 'a'), false, limits_);
  queue_.insert(SeqNum(4500), full_slice(1500, 'b'), true, limits_);
  ASSERT_EQ(queue_.range_count(), 1u);
  limits_.true_size = queue_.true_size();
  Reassembly::Inserted inserted = queue_.insert(SeqNum(100), full_slice(1500, 'c'), false, limits_);
  EXPECT_TRUE(inserted.pruned);
  EXPECT_EQ(inserted.added, 1500u);
  EXPECT_EQ(sacks(), (Blocks{{100, 1600}, {3000, 4500}}));
  EXPECT_EQ(queue_.size(), 3000u);
  limits_.true_size = 1 << 30;
  EXPECT_EQ(insert(4500, std::string(1500, 'b'), true).added, 1501u);
  EXPECT_EQ(extract(3000, true), std::string(1500, 'a') + std::string(1500, 'b'));
}

TEST_F(TcpReassembly, WithoutMemoryItStaysSound) {
  for (uint64_t allocations = 0; allocations < 6; ++allocations) {
    insert(20, "middle");
    arena_.forgive_leaks();
    Slice data = slice("0123456789abcdefghijklmnopqrst");
    arena_.fail_after(allocations);
    Reassembly::Inserted inserted = queue_.insert(SeqNum(10), std::move(data), true, limits_);
    arena_.never_fail();
    Reassembly::Inserted again =
        queue_.insert(SeqNum(10), slice("0123456789abcdefghijklmnopqrst"), true, limits_);
    EXPECT_EQ(inserted.added + again.added, 25u);
    EXPECT_EQ(inserted.dropped, again.added > 0);
    EXPECT_EQ(extract(10, true), "0123456789middleghijklmnopqrst");
    EXPECT_EQ(queue_.true_size(), 0u);
  }
  EXPECT_EQ(blocks_.live(), 0u);
  EXPECT_EQ(pieces_.live(), 0u);
}

// Against a map of sequence numbers: which are held, and by whose byte.
TEST_F(TcpReassembly, AgreesWithAModel) {
  constexpr uint32_t kStream = 20000;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    test::SeededRandom random(seed);
    auto origin = static_cast<uint32_t>(random.next());
    std::vector<int> held(kStream + 1, -1);  // the byte, -1: not held; the last is the FIN
    const int kFin = 1000;
    uint32_t next = 0;
    std::string received, expected;
    bool done = false;
    for (int step = 0; step < 2000 && !done; ++step) {
      uint32_t seq = next + static_cast<uint32_t>(random.below(random.chance(0.7) ? 300 : 6000));
      if (seq > kStream) seq = kStream;
      auto length = static_cast<uint32_t>(
          std::min<uint64_t>(random.below(random.chance(0.5) ? 20 : 1500), kStream - seq));
      bool fin = seq + length == kStream;
      if (length == 0 && !fin) continue;
      std::string text(length, 0);
      for (char& c : text) c = static_cast<char>(random.next());

      Reassembly::Inserted inserted = insert(origin + seq, text, fin);
      uint32_t added = 0;
      std::optional<std::pair<uint32_t, uint32_t>> duplicate;
      for (uint32_t i = 0; i < length + (fin ? 1u : 0u); ++i) {
        int& at = held[seq + i];
        if (at < 0) {
          at = i == length ? kFin : static_cast<uint8_t>(text[i]);
          ++added;
        } else if (!duplicate) {
          duplicate = {seq + i, seq + i + 1};
        } else if (duplicate->second == seq + i) {
          ++duplicate->second;
        }
      }
      ASSERT_EQ(inserted.added, added);
      ASSERT_FALSE(inserted.dropped);
      ASSERT_EQ(inserted.duplicate.has_value(), duplicate.has_value());
      if (duplicate) {
        EXPECT_EQ(inserted.duplicate->start, SeqNum(origin + duplicate->first));
        EXPECT_EQ(inserted.duplicate->end, SeqNum(origin + duplicate->second));
      }

      // What SACK says is what is held, and the first block holds this segment.
      std::vector<bool> sacked(kStream + 1);
      Blocks blocks = sacks(100000);
      ASSERT_EQ(blocks.size(), queue_.range_count());
      EXPECT_TRUE(SeqNum(blocks[0].first) <= SeqNum(origin + seq));
      EXPECT_TRUE(SeqNum(blocks[0].second) >= SeqNum(origin + seq + length));
      for (auto [from, to] : blocks)
        for (uint32_t s = from - origin; s < to - origin; ++s) {
          ASSERT_FALSE(sacked[s]) << "blocks overlap";
          sacked[s] = true;
        }
      for (uint32_t s = next; s <= kStream; ++s) ASSERT_EQ(sacked[s], held[s] >= 0) << s;

      if (random.chance(0.3)) {
        // An in-order segment arrives, and takes its bytes along.
        auto in_order = static_cast<uint32_t>(std::min<uint64_t>(random.below(400), kStream - next));
        next += in_order;
        Reassembly::Extracted extracted = queue_.extract(SeqNum(origin + next), buffer_);
        std::string out = read_all();
        ASSERT_EQ(out.size(), extracted.bytes);
        for (char c : out) ASSERT_EQ(static_cast<uint8_t>(c), held[next++]);
        ASSERT_EQ(extracted.fin, next == kStream && held[kStream] == kFin);
        ASSERT_TRUE(extracted.fin || held[next] < 0) << "all that was in order came";
        done = extracted.fin;
      }
    }
    queue_.clear();
    EXPECT_EQ(queue_.size(), 0u);
    EXPECT_EQ(queue_.true_size(), 0u);
    EXPECT_EQ(blocks_.live(), 0u);
    EXPECT_EQ(pieces_.live(), 0u);
  }
}

TEST_F(TcpReassembly, StaysSoundUnderPressure) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    test::SeededRandom random(seed);
    // Real content by position, so that whatever was given up and came again must still be right.
    auto byte_at = [](uint32_t s) { return static_cast<char>(s * 37 >> 2); };
    Reassembly::Limits limits{.true_size = 30000, .ranges = 8};
    uint32_t next = 0;
    constexpr uint32_t kStream = 60000;
    bool done = false;
    for (int step = 0; step < 20000 && !done; ++step) {
      uint32_t seq = std::min<uint32_t>(next + static_cast<uint32_t>(random.below(20000)), kStream);
      if (random.chance(0.1)) seq = next;
      auto length = static_cast<uint32_t>(std::min<uint64_t>(1 + random.below(1400), kStream - seq));
      std::string text(length, 0);
      for (uint32_t i = 0; i < length; ++i) text[i] = byte_at(seq + i);
      queue_.insert(SeqNum(seq), slice(text), seq + length == kStream, limits);
      ASSERT_LE(queue_.true_size(), 30000u + 4096);
      ASSERT_LE(queue_.range_count(), 8u);
      Reassembly::Extracted extracted = queue_.extract(SeqNum(next), buffer_);
      for (char c : read_all()) ASSERT_EQ(c, byte_at(next++));
      done = extracted.fin;
    }
    EXPECT_TRUE(done) << "the stream is delivered all the same";
    EXPECT_EQ(next, kStream);
    EXPECT_EQ(blocks_.live(), 0u);
  }
}

}  // namespace
}  // namespace ustack::tcp
