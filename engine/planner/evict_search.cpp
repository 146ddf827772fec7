#include "evict_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "bound.h"
#include "evict.h"
#include "refine.h"

namespace mb::planner {
namespace {

constexpr double kExponents[] = {0.5, 1, 0.25};
constexpr std::int64_t kLeastWork = 2'000'000;  // of one eviction
constexpr int kPrices = 6;                      // least cuts that give hints
constexpr float kHint = 8;                      // how much dearer a tensor looks that a cut keeps

class Searcher {
 public:
  Searcher(const Graph& graph, const std::vector<Runs>& orders, Bytes budget, const Runs& start,
           std::int64_t work)
      : graph_(graph), orders_(orders), budget_(budget), best_(start), work_(work) {
    cost_ = start.empty() ? std::numeric_limits<double>::infinity() : cost_of(graph, start);
  }

  Runs run() {
    const std::vector<float> plain(graph_.bytes.size(), 1);
    if (!best_.empty()) {
      const std::vector<float> held = held_by_best();
      for (double exponent : kExponents) attempt(orders_[0], exponent, held);
    }
    for (double exponent : kExponents) {
      for (const Runs& order : orders_) attempt(order, exponent, plain);
    }
    for (const std::vector<float>& hint : hints()) {
      for (double exponent : {0.5, 1.0}) attempt(orders_[0], exponent, hint);
    }
    if (weight_.empty()) weight_ = plain;
    learn();
    return best_;
  }

 private:
  bool attempt(const Runs& order, double exponent, const std::vector<float>& weight) {
    if (work_ <= 0) return false;
    // Filling gaps wins back a few per cent, so slightly dearer evictions are looked at.
    Evicted found = evict(graph_, order, budget_,
                          {exponent, weight, cost_ * 1.02, std::max(kLeastWork, work_)});
    work_ -= found.work;
    if (!found.runs) return false;
    Runs runs = fill_gaps(graph_, std::move(*found.runs), budget_);
    work_ -= 4 * std::int64_t(runs.size());
    const double cost = cost_of(graph_, runs);
    if (cost >= cost_) return false;
    best_ = std::move(runs), cost_ = cost;
    order_ = &order, exponent_ = exponent, weight_ = weight;
    return true;
  }

  // What the start keeps across its fullest moment, and from what it makes the rest.
  std::vector<float> held_by_best() const {
    const Timeline line = timeline(graph_, best_);
    const auto peak = std::max_element(line.live.begin(), line.live.end()) - line.live.begin();
    std::vector<float> weight(graph_.bytes.size(), 1);
    for (const Life& life : line.lives) {
      if (life.first < peak && life.last > peak) weight[life.tensor] = kHint;
    }
    return weight;
  }

  // What least cuts at the fullest slice keep, from all to little.
  std::vector<std::vector<float>> hints() {
    std::vector<std::vector<float>> result;
    const int task = fullest_slice(graph_);
    if (task < 0) return result;
    Bytes bytes = 1;
    for (Bytes b : graph_.bytes) bytes += b;
    const double even = graph_.cost() / double(bytes);  // cost of a byte on average
    for (int i = 0; i < kPrices && work_ > 0; ++i) {
      const auto kept = slice_cut(graph_, task, even * std::pow(2.0, i - 3));
      std::vector<float> weight(graph_.bytes.size(), 1);
      for (std::size_t t = 0; t < weight.size(); ++t) {
        if (kept[t]) weight[t] = kHint;
      }
      result.push_back(std::move(weight));
      work_ -= 100 * graph_.task_count();
    }
    return result;
  }

  // A (1+1) evolution strategy on the tensors' weights (Rechenberg 1973): change a stretch of them,
  // or of tensors chosen at random, keep what is not dearer.
  void learn() {
    std::mt19937_64 random(1);
    if (order_ == nullptr) order_ = &orders_[0];
    std::normal_distribution<float> step(0, 1);
    const int count = graph_.tensor_count();
    while (work_ > 0) {
      std::vector<float> weight = weight_;
      const double share = std::pow(10.0, -3.0 * double(random() % 1000) / 1000);
      const float size = 0.25f + float(random() % 100) / 60;
      if (random() % 2 == 0) {
        const int length = std::max(1, int(share * count)), from = int(random() % count);
        const float factor = std::exp(size * step(random));
        for (int t = from; t < std::min(count, from + length); ++t) weight[t] *= factor;
      } else {
        for (float& w : weight) {
          if (double(random() % 4096) < 4096 * share) w *= std::exp(size * step(random));
        }
      }
      double exponent = exponent_;
      if (random() % 8 == 0) exponent = kExponents[random() % 3];
      const Runs& order = random() % 8 == 0 ? orders_[random() % orders_.size()] : *order_;
      work_ -= count;
      attempt(order, exponent, weight);
    }
  }

  const Graph& graph_;
  const std::vector<Runs>& orders_;
  const Bytes budget_;
  Runs best_;
  double cost_;
  std::int64_t work_;
  const Runs* order_ = nullptr;  // of the best attempt, with its rule
  double exponent_ = 0.5;
  std::vector<float> weight_;
};

}  // namespace

Runs evict_search(const Graph& graph, const std::vector<Runs>& orders, Bytes budget,
                  const Runs& start, std::int64_t work) {
  if (orders.empty()) return start;
  return Searcher(graph, orders, budget, start, work).run();
}

}  // namespace mb::planner
