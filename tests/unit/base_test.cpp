// The small things everything is written in: sequence numbers, lists, byte order, log lines, results.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "stack/base/bytes.h"
#include "stack/base/intrusive_list.h"
#include "stack/base/log.h"
#include "stack/base/result.h"
#include "stack/base/seqnum.h"

namespace ustack {
namespace {

TEST(SeqNum, ComparesAcrossTheWrap) {
  SeqNum before(0xfffffff0), after(0x10);
  EXPECT_LT(before, after);
  EXPECT_GT(after, before);
  EXPECT_LE(before, before);
  EXPECT_EQ(after - before, 0x20u);
  EXPECT_EQ(before + 0x20, after);
  EXPECT_EQ(max(before, after), after);
  EXPECT_EQ(min(before, after), before);
  EXPECT_LT(SeqNum(0), SeqNum(0x7fffffff));
  EXPECT_GT(SeqNum(0), SeqNum(0x80000001));
}

TEST(SeqNum, WindowIsHalfOpen) {
  SeqNum first(0xffffffff);
  EXPECT_TRUE(first.in_window(first, 1));
  EXPECT_TRUE(SeqNum(0).in_window(first, 2));
  EXPECT_FALSE(SeqNum(1).in_window(first, 2));
  EXPECT_FALSE(SeqNum(0xfffffffe).in_window(first, 2));
  EXPECT_FALSE(first.in_window(first, 0));
}

struct Item : ListHook<>, ListHook<struct OtherTag> {
  explicit Item(int v) : value(v) {}
  int value;
};

std::vector<int> values(IntrusiveList<Item>& list) {
  std::vector<int> found;
  for (Item& item : list) found.push_back(item.value);
  return found;
}

TEST(IntrusiveList, OrderAndRemoval) {
  IntrusiveList<Item> list, other;
  Item a(1), b(2), c(3), d(4);
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.pop_front(), nullptr);
  EXPECT_EQ(list.pop_back(), nullptr);
  list.push_back(b);
  list.push_front(a);
  list.insert_after(b, d);
  list.insert_before(d, c);
  EXPECT_EQ(values(list), (std::vector<int>{1, 2, 3, 4}));
  EXPECT_EQ(list.next(a), &b);
  EXPECT_EQ(list.next(d), nullptr);
  EXPECT_EQ(list.previous(a), nullptr);
  EXPECT_EQ(list.previous(b), &a);
  list.remove(b);
  EXPECT_EQ(values(list), (std::vector<int>{1, 3, 4}));
  other.push_back(b);
  other.splice_back(list);
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(values(other), (std::vector<int>{2, 1, 3, 4}));
  EXPECT_EQ(other.pop_back(), &d);
}

TEST(IntrusiveList, ObjectLeavesWhenItDies) {
  IntrusiveList<Item> list;
  IntrusiveList<Item, OtherTag> other;
  Item stays(1);
  list.push_back(stays);
  {
    Item goes(2);
    list.push_back(goes);
    other.push_back(goes);
  }
  EXPECT_EQ(values(list), (std::vector<int>{1}));
  EXPECT_TRUE(other.empty());
}

TEST(IntrusiveList, ListMayDieBeforeItsObjects) {
  Item item(1);
  {
    IntrusiveList<Item> list;
    list.push_back(item);
  }
  EXPECT_FALSE(static_cast<ListHook<>&>(item).linked());
}

TEST(Bytes, BigEndian) {
  std::byte bytes[4];
  store_be32(bytes, 0x01020304);
  EXPECT_EQ(bytes[0], std::byte{1});
  EXPECT_EQ(bytes[3], std::byte{4});
  EXPECT_EQ(load_be32(bytes), 0x01020304u);
  EXPECT_EQ(load_be16(bytes + 1), 0x0203);
}

class Collect final : public LogSink {
 public:
  void write(LogLevel, std::string_view line) override { lines.emplace_back(line); }
  std::vector<std::string> lines;
};

TEST(Log, BuildsOnlyWhatIsOn) {
  Collect sink;
  Log log(LogLevel::info, &sink);
  int built = 0;
  auto build = [&](LogLine& line) {
    ++built;
    line << "n=" << -5 << ' ' << true << ' ' << uint64_t{18446744073709551615u};
    line.hex(0xab, 4);
  };
  log(LogLevel::debug, build);
  EXPECT_EQ(built, 0);
  log(LogLevel::info, build);
  log(LogLevel::error, build);
  EXPECT_EQ(built, 2);
  EXPECT_EQ(sink.lines[0], "n=-5 true 1844674407370955161500ab");
  EXPECT_FALSE(Log().on(LogLevel::error));
  EXPECT_FALSE(Log(LogLevel::trace, nullptr).on(LogLevel::error));
}

TEST(Log, LongLinesAreCut) {
  LogLine line;
  for (int i = 0; i < 1000; ++i) line << 'x';
  EXPECT_EQ(line.text().size(), 400u);
  line << INT64_MIN;
  EXPECT_EQ(line.text().size(), 400u);
}

TEST(Result, IsAValueOrAnErrno) {
  Result<int> good = 7, bad = Error{ENOMEM};
  EXPECT_TRUE(good.ok());
  EXPECT_EQ(*good, 7);
  EXPECT_TRUE(good.status().ok());
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(bad.code(), ENOMEM);
  EXPECT_EQ(bad.status(), Status(Error{ENOMEM}));
}

}  // namespace
}  // namespace ustack
